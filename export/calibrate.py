"""What quantization wants to know of a text, from a float32 pass that holds a layer at a time."""

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
from issun.export.massive import massive_channels
from issun.export.sensitivity import Block, Moves
from issun.export.smoothing import Error, find_factors
from issun.export.weights import Array
from issun.runtime.errors import ParameterError
from issun.runtime.files import as_utf8
from issun.runtime.manifest import Template
from issun.runtime.prompt import PromptBuilder
from issun.runtime.tokenizer import Tokenizer

WINDOW = 256
FEW, MANY = 4, 32  # windows: enough for scales and factors, and for GPTQ
_ASKED = 24  # tokens of every other window that stand in a prompt
_PIECE = 16_384  # bytes of a long text for each window
# A value beyond the range is clipped, which costs far more than coarser steps: on ja-small the KL
# divergence is 0.00060 at 1.1, 0.00003 at 1.3, 0.00002 at 1.6 and 2, 0.00006 at 3.
HEADROOM = 1.6


def calibration_text() -> str:
    """The shipped text: short Japanese dialogues and prose, one paragraph a line."""
    return Path(__file__).with_name("calibration.txt").read_text(encoding="utf-8")


def calibration_ids(
    config: GPT2Config, tokenizer: Tokenizer, template: Template, text: str, *, windows: int
) -> list[int]:
    """Up to so many windows, evenly from a text, every other one with a prompt as users have it.

    The start token and the special tokens have keys and values like no other. Raises
    ParameterError for a text without tokens.
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
            asked = tokenizer.decode(window[:_ASKED]).strip() or "？"
            window = prompts.instruction(asked) + window[_ASKED:]
        found += window[:length]
    return found


def read_calibration_text(path: Path | None) -> str:
    """The user's text, or the shipped one; of a long one 32 pieces from all over it.

    Raises OSError and UnicodeDecodeError.
    """
    if path is None:
        return calibration_text()
    with _open_utf8(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size <= MANY * _PIECE:
            file.seek(0)
            return as_utf8(file.read()).decode("utf-8")
        pieces = []
        for number in range(MANY):
            file.seek(number * (size - _PIECE) // (MANY - 1))
            raw = file.read(_PIECE).removeprefix(BOM_UTF8)
            cut = next((i for i in range(4) if raw[i] & 0xC0 != 0x80), 0)  # inside a character
            # Not final: the last character may be cut too.
            pieces.append(getincrementaldecoder("utf-8")().decode(raw[cut:]))
    return "\n".join(pieces)


def _open_utf8(path: Path) -> BinaryIO:
    """The file itself; one in UTF-16 or UTF-32 is read whole, since pieces of it cannot be cut."""
    file = path.open("rb")
    if file.read(len(BOM_UTF8)).startswith((BOM_UTF16_LE, BOM_UTF16_BE, BOM_UTF32_BE[:3])):
        with file:
            file.seek(0)
            return BytesIO(as_utf8(file.read()))
    return file


@dataclass(slots=True)
class Calibrated:
    """What a pass over a text has found.

    `scales` are a pair for each layer, of keys and of values, each (n_head, kv_head_dim): per
    channel. `moves` say what each linear changes once quantized, where that was asked for, and
    `hidden` is what the last block gives, (window, position, n_embd).
    """

    scales: list[tuple[Array, Array]]
    moves: Moves
    hidden: Array


def calibrate(
    weights: CheckpointWeights,
    ids: Sequence[int],
    *,
    error: Error | None = None,
    gptq: bool = False,
    progress: Callable[[int], object] = lambda layer: None,
) -> Calibrated:
    """Read `ids` in windows of at most 256 tokens, and fit the weights to what each layer sees.

    With an `error`, which says what a linear loses once quantized, channels are evened out and
    massive ones kept apart; with `gptq` the linears are quantized. What they change is measured
    where the precision is mixed. `progress` is told each layer.
    """
    config = weights.config
    windows = cut_windows(config, ids)
    found = Calibrated([], {}, weights.embed(windows))
    for layer in range(config.n_layer):
        get = partial(weights.stored, layer)
        once = cache(get)  # reading takes a fifth of the time; gone before the next layer is read
        seen = run_block(config, layer, found.hidden, once)
        found.hidden, values, inputs = seen.output, seen.values, seen.inputs
        if error:
            factors = find_factors(seen, once, error)
            weights.smooth(layer, factors)
            values = values / factors.value.reshape(config.n_head, 1, config.head_dim)
            inputs = factors.divide(inputs)
            name = "mlp.c_proj"
            rows = inputs[name].reshape(-1, config.n_inner)
            channels = massive_channels(rows, once(f"{name}.weight"), error)
            if channels is not None:
                weights.keep_apart(f"h.{layer}.{name}", channels)
            if weights.precision == "mixed":
                block = Block(
                    config=config,
                    layer=layer,
                    output=seen.output,
                    inputs=inputs,
                    get=get,
                    apart=channels,
                )
                found.moves |= {f"h.{layer}.{n}": moved for n, moved in block.moves().items()}
        del once
        if gptq:
            for name, rows in inputs.items():
                weights.fit(f"h.{layer}.{name}", rows.reshape(-1, rows.shape[-1]))
        found.scales.append((_scale(config, seen.keys), _scale(config, values)))
        del seen, inputs, values  # before the next layer makes its own
        progress(layer + 1)
    return found


def cut_windows(config: GPT2Config, ids: Sequence[int]) -> NDArray[np.int64]:
    """Whole windows of ids: (window, position)."""
    length = min(WINDOW, config.n_positions, len(ids))
    return np.array([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])


def _scale(config: GPT2Config, states: Array) -> Array:
    peak = np.abs(states).max(axis=(0, 2)) * np.float32(HEADROOM)
    scales = np.maximum(peak / np.float32(127), np.float32(1e-8))
    padding = config.kv_head_dim - config.head_dim
    padded: Array = np.pad(scales, [(0, 0), (0, padding)], constant_values=1)
    return padded
