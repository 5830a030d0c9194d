"""Reading a tensor in the graph's layout takes about one copy of it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export.checkpoint import open_checkpoint

SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8}
CONFIGS = {
    "gpt-neox": SIZES,  # queries, keys and values by head, and in rotating pairs
    "llama": SIZES | {"num_key_value_heads": 8, "head_dim": 120},  # padded heads, three tensors
}


@pytest.mark.parametrize("family", CONFIGS)
def test_no_linear_takes_more_than_two_and_a_half_times_its_size(
    family: str, tmp_path: Path
) -> None:
    config = {**SHAPES[family]["tiny"], **CONFIGS[family], "num_hidden_layers": 1}
    make_checkpoint(tmp_path / "checkpoint", config, dtype="float16")
    tensors = open_checkpoint(tmp_path / "checkpoint").tensors
    for name in ("qkv", "out", "up", "down"):
        tracemalloc.start()
        try:
            array = tensors[f"h.0.{name}.weight"].read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2.5 * array.nbytes, name
