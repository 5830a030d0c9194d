"""What a bundle's graph tells of its sizes, in every family and precision."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.benchmarks.tensors import stored_tensors
from issun.export import ExportOptions, export
from issun.export.canonical import expected_shapes
from issun.export.config import parse_config


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("graphs")
    found = {}
    # Nothing is padded at these sizes: heads of 32, blocks of 128.
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    configs = {
        "gpt2": {"n_embd": 128, "n_head": 4, "n_inner": 256},
        "gpt-neox": sizes,
        "llama": sizes | {"head_dim": 32},
    }
    for family, changed in configs.items():
        config = {**SHAPES[family]["tiny"], **changed}
        make_checkpoint(folder / family, config)
        for precision in ("float32", "int8", "int4"):
            bundle = folder / f"{family}-{precision}"
            unfitted = False if precision == "int4" else None
            options = ExportOptions(precision=precision, gptq=unfitted)  # type: ignore[arg-type]
            export(folder / family, bundle, options)
            found[family, precision] = bundle / "model.onnx"
    return found


@pytest.mark.sampled
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_values_are_the_parameters_of_the_checkpoint(
    family: str, precision: str, graphs: dict[tuple[str, str], Path]
) -> None:
    graph = graphs[family, precision]
    config = (graph.parents[1] / family / "config.json").read_text()
    import json

    path = graph.parents[1] / family / "config.json"
    shapes = expected_shapes(*parse_config(json.loads(config), path))
    found = {name: t.values for name, t in stored_tensors(graph).items() if t.values}
    parameters = sum(map(math.prod, shapes.values()))
    assert sum(found.values()) == pytest.approx(parameters, rel=0.01)  # outlier channels, floors


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize(
    ("family", "tables"),
    [
        ("gpt2", {"positions.weight"}),  # the embedding is the head, too
        ("gpt-neox", {"embed.weight", "rotary.cos", "rotary.sin"}),
        ("llama", {"embed.weight", "rotary.cos", "rotary.sin"}),
    ],
)
def test_tables_are_what_single_rows_are_read_of(
    family: str, tables: set[str], precision: str, graphs: dict[tuple[str, str], Path]
) -> None:
    tensors = stored_tensors(graphs[family, precision])
    found = {name for name, t in tensors.items() if t.is_table and t.nbytes > 4096}
    assert found - {"embed.scale"} == tables
