"""The expected cost of GPTQ against measured exports of two shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.benchmarks.shapes import SHAPES
from issun.export.config import parse_config
from issun.export.cost import gptq_cost

FLOPS = 85e9  # of one core where the figures were measured
TOKENS = 32 * 256


# Shape, layers -> processor seconds and peak bytes of the whole export.
MEASURED = {("1.3b", 2): (75.9, 1.768e9), ("rinna-medium", 4): (39.7, 0.968e9)}


@pytest.mark.parametrize(("size", "layers"), MEASURED)
def test_the_cost_is_close_to_measured_ones(size: str, layers: int) -> None:
    config = {**SHAPES["gpt2"][size], "n_layer": layers}
    _, network = parse_config(config, Path("config.json"))
    d, inner = network.n_embd, network.n_inner
    shapes = {"qkv": (d, 3 * d), "out": (d, d), "up": (d, inner), "down": (inner, d)}
    cost = gptq_cost(network, shapes, tokens=TOKENS, flops=FLOPS)
    seconds, peak = MEASURED[size, layers]
    assert seconds / 1.5 <= cost.seconds <= 1.5 * seconds
    assert peak / 1.25 <= cost.peak_bytes <= 1.25 * peak
