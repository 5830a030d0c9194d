"""What an export is expected to cost with GPTQ and in mixed precision, from the network's shape."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from issun.export.network import Network

# Measured on the 1.3 B shape with 32 windows of 256 tokens (2026-11-29, Xeon with AVX-512).
_SECONDS_PER_WEIGHT = 0.13e-6  # rounding with four scales, on one core
_OTHER_WORK = 1.2  # of reading, smoothing and storing, relative to the fit itself
_MIXTURES = 32  # measured with a pass over the held-out text; the sensitivities take some, too
_MIXTURE_BYTES = 1.3  # of memory per weight while a mixture of mostly 8 bits is open
_BASE_BYTES = 200_000_000  # interpreter, libraries, tokenizer and graph
_SAMPLE = 1024  # size of the product that measures the machine's speed


@dataclass(frozen=True, slots=True)
class Cost:
    """Expected seconds, and expected peak memory in bytes."""

    seconds: float
    peak_bytes: int


def gptq_cost(
    network: Network, shapes: Mapping[str, tuple[int, ...]], *, tokens: int, flops: float
) -> Cost:
    """The cost of fitting all linear layers to `tokens`, at `flops` float32 operations a second.

    Operations of a layer: the forward pass, the Hessian of each input, its Cholesky factor, and
    the errors that are carried over to later columns. `shapes` are (in, out) of a block's linear
    layers by name. The peak is reached either while activations are smoothed, which copies them, or
    next to the widest Hessian and its factor.
    """
    weights = sum(width * out for width, out in shapes.values())
    widths = [shape[0] for name, shape in shapes.items() if name != "gate"]
    work = 2 * tokens * weights
    work += sum(tokens * width**2 + width**3 // 3 for width in widths)
    work += sum(width**2 * out for width, out in shapes.values())
    seconds = _OTHER_WORK * network.n_layer * (work / flops + weights * _SECONDS_PER_WEIGHT)
    states = 2 * network.n_embd + 2 * network.n_kv_head * network.kv_head_dim
    smoothing = tokens * (states + 2 * sum(widths)) + weights
    widest = max(width * max(width, out) for width, out in shapes.values())
    fitting = tokens * (states + sum(widths)) + 2 * max(widths) ** 2 + widest
    return Cost(seconds, _BASE_BYTES + 4 * max(smoothing, fitting))


def measuring_cost(
    network: Network, shapes: Mapping[str, tuple[int, ...]], *, tokens: int, flops: float
) -> Cost:
    """The cost of measuring mixtures of precisions on `tokens`, besides that of `gptq_cost`.

    Each block is measured by itself too, on half of the tokens. A pass is taken to be as fast as in
    float32, since loading a mixture takes some of the time that fewer bits save.
    """
    weights = network.n_layer * sum(width * out for width, out in shapes.values())
    weights += network.vocab_size * network.n_embd
    passes = _MIXTURES + network.n_layer / 2
    seconds = passes * 2 * tokens * weights / flops
    return Cost(seconds, _BASE_BYTES + int(_MIXTURE_BYTES * weights))


def measured_flops() -> float:
    """Float32 operations a second of this machine's matrix products, with all its threads."""
    matrix = np.ones((_SAMPLE, _SAMPLE), np.float32)
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * _SAMPLE**3 / max(float(best), 1e-6)
