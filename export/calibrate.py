"""What quantization wants to know of a text, from a float32 pass that holds a layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from issun.export.config import GPT2Config
from issun.export.forward import run_block
from issun.export.smoothing import Error, Factors, find_factors
from issun.export.weights import Array, Tensor
from issun.runtime.manifest import Template
from issun.runtime.prompt import PromptBuilder
from issun.runtime.tokenizer import Tokenizer

WINDOW = 256
# A value beyond the range is clipped, which costs far more than coarser steps: on ja-small the KL
# divergence is 0.00060 at 1.1, 0.00003 at 1.3, 0.00002 at 1.6 and 2, 0.00006 at 3.
HEADROOM = 1.6


def calibration_text() -> str:
    """The shipped text: short Japanese dialogues and prose, one paragraph a line."""
    return Path(__file__).with_name("calibration.txt").read_text(encoding="utf-8")


def calibration_ids(config: GPT2Config, tokenizer: Tokenizer, template: Template) -> list[int]:
    """Windows of the shipped text, every other one behind a prompt as users' texts are.

    The start token and the special tokens have keys and values like no other.
    """
    prompts = PromptBuilder(template, tokenizer, config.n_positions)
    length = min(WINDOW, config.n_positions)
    text, lines = tokenizer.encode(calibration_text()), calibration_text().splitlines()
    ids: list[int] = []
    for number, start in enumerate(range(0, len(text), length)):
        prompt = [] if number % 2 else prompts.instruction(lines[number % len(lines)])
        ids += [*prompt, *text[start : start + length]][:length]
    return ids


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a text tells about each layer.

    `scales` are those of keys and values, each (n_head, kv_head_dim): per channel. `factors` even
    out channels; none where `error` was not given.
    """

    scales: list[tuple[Array, Array]]
    factors: list[Factors]


def calibrate(
    config: GPT2Config,
    tensors: Mapping[str, Tensor],
    ids: Sequence[int],
    error: Error | None,
    progress: Callable[[int], None],
) -> Calibration:
    """Read `ids` in windows of at most 256 tokens; `progress` is told each layer.

    `error` says what a linear loses once quantized; without it nothing is evened out.
    """
    length = min(WINDOW, config.n_positions, len(ids))
    windows = np.array([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])
    rows = {int(i): tensors["wte.weight"].read(int(i), int(i) + 1)[0] for i in np.unique(windows)}
    x = np.stack([[rows[int(i)] for i in window] for window in windows])
    x = x + tensors["wpe.weight"].read(0, length)  # (window, position, n_embd)
    scales, factors = [], []
    for layer in range(config.n_layer):

        def get(name: str, at: str = f"h.{layer}") -> Array:
            return tensors[f"{at}.{name}"].read()

        seen = run_block(config, layer, x, get)
        x, values = seen.output, seen.values
        if error:
            factors.append(find_factors(seen, get, error))
            values = values / factors[-1].value.reshape(config.n_head, 1, config.head_dim)
        scales.append((_scale(config, seen.keys), _scale(config, values)))
        progress(layer + 1)
    return Calibration(scales, factors)


def _scale(config: GPT2Config, states: Array) -> Array:
    peak = np.abs(states).max(axis=(0, 2)) * np.float32(HEADROOM)
    scales = np.maximum(peak / np.float32(127), np.float32(1e-8))
    padding = config.kv_head_dim - config.head_dim
    padded: Array = np.pad(scales, [(0, 0), (0, padding)], constant_values=1)
    return padded
