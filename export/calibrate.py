"""Calibration: a float32 pass over a text, one layer in memory at a time."""

from __future__ import annotations

import os
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, getincrementaldecoder
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from issun.export.config import GPT2Config
from issun.export.forward import run_block
from issun.export.lazy import CheckpointWeights
from issun.export.outliers import find_outlier_channels
from issun.export.sensitivity import Sensitivities, SensitivityProbe
from issun.export.smoothing import Loss, find_factors
from issun.export.weights import Array
from issun.runtime.errors import ParameterError
from issun.runtime.files import as_utf8
from issun.runtime.manifest import Template
from issun.runtime.prompt import PromptBuilder
from issun.runtime.tokenizer import Tokenizer

WINDOW = 256
NUM_WINDOWS, NUM_WINDOWS_GPTQ = 4, 32  # for scales and smoothing factors; for GPTQ
_PROMPT_TOKENS = 24  # of every other window, put into a prompt
_PIECE_BYTES = 16_384  # read for each window of a long text
# Clipping a value out of range costs far more than coarser steps: on ja-small the KL divergence is
# 0.00060 at 1.1, 0.00003 at 1.3, 0.00002 at 1.6 and 2, 0.00006 at 3.
HEADROOM = 1.6


def calibration_text() -> str:
    """The shipped text: short Japanese dialogues and prose, one paragraph a line."""
    return Path(__file__).with_name("calibration.txt").read_text(encoding="utf-8")


def calibration_ids(
    config: GPT2Config, tokenizer: Tokenizer, template: Template, text: str, *, windows: int
) -> list[int]:
    """Token ids of at most `windows` windows, taken at even intervals from the text.

    Every other window starts with a prompt built from the template, because the keys and values
    of the start token and of special tokens differ from those of text. Raises ParameterError for
    a text without tokens.
    """
    prompts = PromptBuilder(template, tokenizer, config.n_positions)
    length = min(WINDOW, config.n_positions)
    ids = tokenizer.encode(text)
    if not ids:
        raise ParameterError("The calibration text has no characters that the tokenizer knows.")
    starts = range(0, len(ids), length)
    found: list[int] = []
    for number, start in enumerate(starts[:: -(-len(starts) // windows)]):
        window = ids[start : start + length]
        if number % 2 == 0:
            question = tokenizer.decode(window[:_PROMPT_TOKENS]).strip() or "？"
            window = prompts.instruction(question) + window[_PROMPT_TOKENS:]
        found += window[:length]
    return found


def read_calibration_text(path: Path | None) -> str:
    """The text in `path`, or the shipped one; of a long file 32 evenly spaced pieces.

    Raises OSError and UnicodeDecodeError.
    """
    if path is None:
        return calibration_text()
    with _open_utf8(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size <= NUM_WINDOWS_GPTQ * _PIECE_BYTES:
            file.seek(0)
            return as_utf8(file.read()).decode("utf-8")
        pieces = []
        for number in range(NUM_WINDOWS_GPTQ):
            file.seek(number * (size - _PIECE_BYTES) // (NUM_WINDOWS_GPTQ - 1))
            raw = file.read(_PIECE_BYTES).removeprefix(BOM_UTF8)
            # A piece may start and end inside a character.
            cut = next((i for i in range(4) if raw[i] & 0xC0 != 0x80), 0)
            pieces.append(getincrementaldecoder("utf-8")().decode(raw[cut:]))
    return "\n".join(pieces)


def _open_utf8(path: Path) -> BinaryIO:
    """The open file; UTF-16 and UTF-32 are converted to UTF-8 in memory."""
    file = path.open("rb")
    if file.read(len(BOM_UTF8)).startswith((BOM_UTF16_LE, BOM_UTF16_BE, BOM_UTF32_BE[:3])):
        with file:
            file.seek(0)
            return BytesIO(as_utf8(file.read()))
    return file


@dataclass(slots=True)
class Calibrated:
    """The results of a calibration pass.

    `scales` has a pair for each layer, the per-channel scales of keys and values, each
    (n_head, kv_head_dim). `sensitivities` is empty unless the precision is mixed. `hidden` is the
    output of the last block, (window, position, n_embd).
    """

    scales: list[tuple[Array, Array]]
    sensitivities: Sensitivities
    hidden: Array


def calibrate(
    weights: CheckpointWeights,
    ids: Sequence[int],
    *,
    loss: Loss | None = None,
    gptq: bool = False,
    progress: Callable[[int], object] = lambda layer: None,
) -> Calibrated:
    """Run `ids` in windows of at most 256 tokens, and adapt each layer's weights to its inputs.

    With a `loss`, the weights are smoothed (SmoothQuant) and outlier channels are kept in float32;
    with `gptq`, the linear layers are quantized here. Mixed precision also measures each linear
    layer's sensitivity. `progress` is called with the number of finished layers.
    """
    config = weights.config
    windows = cut_windows(config, ids)
    found = Calibrated([], {}, weights.embed(windows))
    for layer in range(config.n_layer):
        get = partial(weights.stored, layer)
        cached = cache(get)  # reading takes a fifth of the time
        block = run_block(config, layer, found.hidden, cached)
        found.hidden, values, inputs = block.output, block.values, block.inputs
        if loss:
            factors = find_factors(block, cached, loss)
            weights.smooth(layer, factors)
            values = values / factors.value.reshape(config.n_head, 1, config.head_dim)
            inputs = factors.divide(inputs)
            name = "mlp.c_proj"
            rows = inputs[name].reshape(-1, config.n_inner)
            channels = find_outlier_channels(rows, cached(f"{name}.weight"), loss)
            if channels is not None:
                weights.set_outlier_channels(f"h.{layer}.{name}", channels)
            if weights.precision == "mixed":
                measured = SensitivityProbe(
                    config=config,
                    layer=layer,
                    output=block.output,
                    inputs=inputs,
                    get=get,
                    outliers=channels,
                ).measure()
                found.sensitivities |= {f"h.{layer}.{n}": s for n, s in measured.items()}
        del cached  # frees the float32 weights before the next layer is read
        if gptq:
            for name, rows in inputs.items():
                weights.quantize_gptq(f"h.{layer}.{name}", rows.reshape(-1, rows.shape[-1]))
        found.scales.append((_scale(config, block.keys), _scale(config, values)))
        del block, inputs, values  # before the next layer allocates its own
        progress(layer + 1)
    return found


def cut_windows(config: GPT2Config, ids: Sequence[int]) -> NDArray[np.int64]:
    """`ids` as windows of equal length, (window, position); a shorter rest is dropped."""
    length = min(WINDOW, config.n_positions, len(ids))
    return np.array([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])


def _scale(config: GPT2Config, states: Array) -> Array:
    peak = np.abs(states).max(axis=(0, 2)) * np.float32(HEADROOM)
    scales = np.maximum(peak / np.float32(127), np.float32(1e-8))
    padding = config.kv_head_dim - config.head_dim
    padded: Array = np.pad(scales, [(0, 0), (0, padding)], constant_values=1)
    return padded
