"""Calibration: a float32 pass over a text, one layer in memory at a time."""

from __future__ import annotations

import os
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, getincrementaldecoder
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from issun.export.kinds import Kind
from issun.export.lazy import CheckpointWeights
from issun.export.network import Network
from issun.export.observe import Block, BlockActivations
from issun.export.outliers import GATED_GAIN, find_outlier_channels
from issun.export.quantization_loss import product_loss
from issun.export.sensitivity import Sensitivities, measure, worthwhile_factors
from issun.export.smoothing import PLACES, SIZES, Factors, find_factors
from issun.export.weights import Array
from issun.runtime.errors import ParameterError
from issun.runtime.files import as_utf8
from issun.runtime.manifest import AnyTemplate
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.tokenizer import Tokenizer

WINDOW = 256
NUM_WINDOWS, NUM_WINDOWS_GPTQ = 4, 24  # for scales and smoothing factors; for GPTQ
_FOLDS = 5  # every fifth window of a text is held out: nothing is fitted to it
NUM_WINDOWS_HELD_OUT = 8
_PROMPT_TOKENS = 24  # of every other window, put into a prompt
_PIECE_BYTES = 16_384  # read for each window of a long text
# Clipping a value out of range costs far more than coarser steps: on ja-small the KL divergence is
# 0.00060 at 1.1, 0.00003 at 1.3, 0.00002 at 1.6 and 2, 0.00006 at 3.
HEADROOM = 1.6


def calibration_text() -> str:
    """The shipped text, one paragraph a line.

    Prose, news, encyclopedia style, dialogues, questions, numbers, some English and code.
    """
    return Path(__file__).with_name("calibration.txt").read_text(encoding="utf-8")


def calibration_ids(
    network: Network,
    tokenizer: Tokenizer,
    template: AnyTemplate,
    text: str,
    *,
    windows: int,
    held_out: bool = False,
) -> list[int]:
    """Token ids of at most `windows` windows, taken at even intervals from the text.

    Every fifth window is left out, and only these are taken if `held_out`: a text of fewer than
    five windows of 256 tokens is cut into five shorter ones.
    Every other window starts with a prompt built from the template, because the keys and values
    of the start token and of special tokens differ from those of text. Raises ParameterError for
    a text without tokens.
    """
    prompts = PromptBuilder(template, tokenizer, network.n_positions)
    ids = tokenizer.encode(text)
    if not ids:
        raise ParameterError("The calibration text has no characters that the tokenizer knows.")
    length = min(WINDOW, network.n_positions, -(-len(ids) // _FOLDS))
    folds = range(0, len(ids), length)
    starts = [start for i, start in enumerate(folds) if (i % _FOLDS == _FOLDS - 1) == held_out]
    starts = starts or [0]  # of fewer than five tokens
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
    (n_kv_head, kv_head_dim). `sensitivities` are those of the held-out windows, and `held_out` is
    the float32 output of the last block for them, (window, position, n_embd).
    """

    scales: list[tuple[Array, Array]]
    sensitivities: Sensitivities
    held_out: Array


def calibrate(
    weights: CheckpointWeights,
    ids: Sequence[int],
    *,
    smooth_for: Kind | None = None,
    gptq: bool = False,
    held_out: Sequence[int] = (),
    progress: Callable[[float], object] = lambda layers: None,
) -> Calibrated:
    """Run `ids` in windows of at most 256 tokens, and adapt each layer's weights to its inputs.

    With `smooth_for`, the weights are smoothed (SmoothQuant) for linear layers of that precision,
    and outlier channels are kept in float32; with `gptq`, the linear layers are quantized here.
    With ids `held_out`, the sensitivity of each linear layer is measured on them after that.
    `progress` is called with the number of finished layers, a fraction within a layer.
    """
    network = weights.network
    weights.check_outside_blocks()
    x = weights.embed(cut_windows(network, ids))
    found = Calibrated([], {}, x[:0])
    if held_out:
        found.held_out = weights.embed(cut_windows(network, held_out))
    for layer in range(network.n_layer):
        block = Block(weights, layer, takes_errors=smooth_for is not None)
        seen = block.run(x)
        if smooth_for:
            loss, sizes = product_loss(smooth_for), SIZES[smooth_for]
            factors = find_factors(network, seen.inputs, block.weight, loss, sizes)
            factors = worthwhile_factors(factors, block, x, seen, smooth_for)
            seen = _smooth(weights, layer, seen, factors)
            down = factors.apply("down.weight", block.weight("down"))
            _set_outlier_channels(weights, layer, seen, down, smooth_for)
        del block  # frees the float32 weights before the next layer is read
        if gptq:
            _fit(weights, layer, seen, progress)
        found.scales.append((_scale(seen.keys), _scale(seen.values)))
        x = seen.output
        del seen  # before the next layer allocates its own
        if held_out:
            unseen = Block(weights, layer).run(found.held_out)
            found.sensitivities |= measure(weights, layer, found.held_out, unseen)
            found.held_out = unseen.output
        progress(layer + 1)
    return found


def _fit(
    weights: CheckpointWeights,
    layer: int,
    seen: BlockActivations,
    progress: Callable[[float], object],
) -> None:
    """Fit a block's linear layers with GPTQ, the widest inputs first.

    Threads of BLAS would mostly wait while one of ours rounds, so that ours multiply by themselves.
    """

    def fit(names: tuple[str, ...]) -> None:
        bases = [f"h.{layer}.{name}" for name in names if name in seen.inputs]
        rows = seen.inputs[names[-1]]
        weights.quantize_gptq(bases, rows.reshape(-1, rows.shape[-1]))

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2) as pool:
        fits = [pool.submit(fit, names) for names in reversed(PLACES.values())]
        for number, done in enumerate(as_completed(fits)):
            done.result()
            # About half of a layer's time is GPTQ's.
            progress(layer + 0.5 + number / (2 * len(fits)))


def _smooth(
    weights: CheckpointWeights, layer: int, seen: BlockActivations, factors: Factors
) -> BlockActivations:
    """Smooth a block; returns its activations after that."""
    network = weights.network
    weights.smooth(layer, factors)
    values = seen.values / factors.value.reshape(network.n_kv_head, 1, network.kv_head_dim)
    return replace(seen, values=values, inputs=factors.divide(seen.inputs))


def _set_outlier_channels(
    weights: CheckpointWeights, layer: int, seen: BlockActivations, down: Array, kind: Kind
) -> None:
    """Choose the outlier channels of a block whose down projection has the weight `down`."""
    network = weights.network
    rows, output = seen.inputs["down"], seen.output
    channels = find_outlier_channels(
        rows.reshape(-1, network.n_inner),
        down,
        output.reshape(-1, network.n_embd),
        product_loss(kind),
        min_gain=GATED_GAIN[kind] if network.gated else None,
    )
    if channels is not None:
        weights.set_outlier_channels(f"h.{layer}.down", channels)


def cut_windows(network: Network, ids: Sequence[int]) -> NDArray[np.int64]:
    """`ids` as windows of equal length, (window, position); a shorter rest is dropped."""
    length = min(WINDOW, network.n_positions, len(ids))
    return np.array([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])


def _scale(states: Array) -> Array:
    peak = np.abs(states).max(axis=(0, 2)) * np.float32(HEADROOM)
    scales: Array = np.maximum(peak / np.float32(127), np.float32(1e-8))
    return scales


def final_states(weights: CheckpointWeights, windows: NDArray[np.int64]) -> Array:
    """The float32 output of the last block, (window, position, n_embd)."""
    x = weights.embed(windows)
    for layer in range(weights.network.n_layer):
        x = Block(weights, layer).run(x).output
    return x
