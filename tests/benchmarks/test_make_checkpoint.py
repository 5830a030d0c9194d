"""Checkpoints with random weights: the shapes of published models, written a part at a time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.benchmarks.small_tokenizers import train_tokenizer
from issun.export import ExportOptions, export
from issun.export.canonical import expected_shapes
from issun.export.checkpoint import open_checkpoint
from issun.export.config import parse_config
from issun.runtime import Model, SamplingParams

ALL = [(family, size) for family, sizes in SHAPES.items() for size in sizes]
# Parameters that the model cards state: embeddings (and head, if it is not tied), all others.
STATED = {
    ("llama", "440m"): (203_749_376, 243_303_424),
    ("llama", "1.8b"): (407_498_752, 1_459_718_144),
    ("llama", "3.7b"): (611_248_128, 3_171_068_928),
}
_STATED_VOCAB = 99_487  # of llm-jp-3, which its rows are padded to 99,584
ROUNDED = {  # billions of parameters that names and cards state
    ("gpt2", "small"): 0.124,
    ("gpt2", "1b"): 1.3,
    ("gpt2", "1.3b"): 1.3,
    ("gpt2", "1.7b"): 1.7,
    ("gpt-neox", "3.6b"): 3.6,
    ("gpt-neox", "line-3.6b"): 3.6,
    ("gpt-neox", "open-calm-small"): 0.16,
    ("gpt-neox", "open-calm-medium"): 0.4,
    ("gpt-neox", "open-calm-large"): 0.83,
    ("gpt-neox", "open-calm-1b"): 1.4,
    ("gpt-neox", "open-calm-3b"): 2.7,
    ("gpt-neox", "open-calm-7b"): 6.8,
    ("mistral", "1.5b"): 1.5,
    ("qwen2", "1.5b"): 1.54,
    ("qwen3", "0.6b"): 0.6,
    ("qwen3", "1.7b"): 1.7,
}


def parameters(family: str, size: str) -> dict[str, int]:
    """The number of values of each stored tensor."""
    shapes = expected_shapes(*parse_config(dict(SHAPES[family][size]), Path("config.json")))
    return {name: math.prod(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("shape", "stated"), STATED.items(), ids=map("-".join, STATED))
def test_parameters_are_those_that_the_model_card_states(
    shape: tuple[str, str], stated: tuple[int, int]
) -> None:
    found = parameters(*shape)
    tables = [count for name, count in found.items() if name.startswith(("embed", "lm_head"))]
    rows = SHAPES[shape[0]][shape[1]]["vocab_size"]
    assert (sum(tables) // rows * _STATED_VOCAB, sum(found.values()) - sum(tables)) == stated


@pytest.mark.parametrize(("shape", "billions"), ROUNDED.items(), ids=map("-".join, ROUNDED))
def test_parameters_are_as_many_as_the_name_says(shape: tuple[str, str], billions: float) -> None:
    assert sum(parameters(*shape).values()) / 1e9 == pytest.approx(billions, rel=0.06)


@pytest.mark.sampled
@pytest.mark.parametrize("family", SHAPES)
def test_a_tiny_checkpoint_of_each_family_exports_and_generates(
    family: str, tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers")
    make_checkpoint(tmp_path / "tiny", SHAPES[family]["tiny"], dtype="float16")
    export(tmp_path / "tiny", tmp_path / "bundle", ExportOptions(precision="int4", gptq=False))
    with Model.load(tmp_path / "bundle") as model:
        assert model.manifest.architecture.family == SHAPES[family]["tiny"]["model_type"]
        params = SamplingParams(temperature=0, min_new_tokens=4, max_new_tokens=4)
        assert len(model.generate("山の高さは", params).ids) == 4


def test_float16_weights_are_the_rounded_float32_ones(tmp_path: Path) -> None:
    config = SHAPES["llama"]["tiny"]
    for dtype in ("float32", "float16"):
        make_checkpoint(tmp_path / dtype, config, dtype=dtype, seed=3)
    exact = load_file(tmp_path / "float32" / "model.safetensors")
    half = load_file(tmp_path / "float16" / "model.safetensors")
    assert exact.keys() == half.keys()
    for name, array in exact.items():
        np.testing.assert_array_equal(half[name], array.astype(np.float16))
    assert json.loads((tmp_path / "float16" / "config.json").read_text())["torch_dtype"] == (
        "float16"
    )


def test_weights_of_norms_are_around_1_and_all_others_around_0(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "tiny", SHAPES["qwen3"]["tiny"])
    weights = load_file(tmp_path / "tiny" / "model.safetensors")
    means = {name: float(array.mean()) for name, array in weights.items()}
    near_1 = {name for name, mean in means.items() if abs(mean - 1) < 0.05}
    assert near_1 == {name for name in weights if "norm" in name}
    assert all(abs(mean) < 0.05 for name, mean in means.items() if name not in near_1)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("shape", "kind", "eos", "template"),
    [
        (("gpt2", "tiny"), "t5", 3, "alpaca-japanese"),
        (("gpt-neox", "tiny"), "t5", 3, "plain"),
        (("gpt-neox", "open-calm-small"), "json", 0, None),
        (("llama", "tiny"), "llama", 3, "plain"),
        (("qwen2", "tiny"), "json", 2, "chat_template"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_the_tokenizer_is_of_the_kind_that_the_model_has(
    shape: tuple[str, str], kind: str, eos: int, template: str | None, tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers")
    family, size = shape
    small = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1}
    config = {**SHAPES[family][size], **(small if size != "tiny" else {})}
    make_checkpoint(tmp_path / "small", config)
    manifest = export(tmp_path / "small", tmp_path / "bundle")
    assert (manifest.tokens.kind, manifest.tokens.eos) == (kind, eos)
    assert template in (None, manifest.prompt.name)
    with Model.load(tmp_path / "bundle") as model:
        text = "富士山 3,776 m 🗻"
        ids = model.tokenizer.encode(text)
        unknown = kind == "t5"  # the digits and the mountain are not in its vocabulary
        assert unknown or model.tokenizer.decode(ids).strip() == text


def test_no_whole_tensor_is_in_memory(tmp_path: Path) -> None:
    config = {**SHAPES["llama"]["tiny"], "vocab_size": 400_000}  # 102 MB in float32
    tokenizer = tmp_path / "spiece.model"
    train_tokenizer(tokenizer, pieces=600)
    tracemalloc.start()
    try:
        make_checkpoint(tmp_path / "large", config, tokenizer=tokenizer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "large" / "model.safetensors").stat().st_size > 200e6
    assert peak < 40e6


def test_every_shape_is_a_config_that_issun_reads() -> None:
    for family, size in ALL:
        network = parse_config(dict(SHAPES[family][size]), Path("config.json"))[1]
        assert network.family == family.replace("-", "_")


def test_weights_match_the_config_of_every_family(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    for family in SHAPES:
        make_checkpoint(tmp_path / family, SHAPES[family]["tiny"])
        opened = open_checkpoint(tmp_path / family)  # raises for a missing or unknown tensor
        assert opened.family.base


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "llama", "--size", "9b"], "llama has no size 9b: choose from tiny, 440m"),
        (["--family", "bert"], "invalid choice: 'bert'"),
        (["--size", "tiny", "--dtype", "int8"], "invalid choice: 'int8'"),
    ],
    ids=["size", "family", "dtype"],
)
def test_a_wrong_option_is_one_line_that_names_the_choices(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-m", "issun.benchmarks.make_checkpoint"]
    done = subprocess.run(
        [*command, str(tmp_path / "new"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
