"""Quantizes float weights to 8-bit and 4-bit integers with scales, in numpy and in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rows = Callable[[int, int], Array]

_CHUNK_VALUES = 1 << 21  # 8 MiB of float32 at a time
_GROUPS = 4  # as wide as the residual stream in most networks


@dataclass(frozen=True, slots=True)
class Quantized:
    """Integers and their scales, in the layout of the ONNX operator."""

    values: NDArray[np.int8] | NDArray[np.uint8]
    scales: Array


def quantize_columns(weight: Array) -> Quantized:
    """Quantize to int8 with one scale per output channel: w ~ values * scales.

    `weight` and the values are (in, out), scales are (out,). The range is symmetric: -127 to 127.
    """
    return _round_columns(weight, lambda rows: np.abs(rows).max(axis=0))


def quantize_column_pairs(weight: Array) -> Quantized:
    """Like `quantize_columns`, for products that are added in pairs in 16 bits.

    The values of two consecutive input channels add up to between -128 and 128, whichever of them
    are left out. 255 times that fits, so that inputs can have 8 bits on every CPU.
    """
    return _round_columns(weight, _largest_pairs)


def _round_columns(weight: Array, largest: Callable[[Array], Array]) -> Quantized:
    """Round to -127 to 127, where 127 is what `largest` returns for each column of some rows."""
    step = 2 * max(1, _CHUNK_VALUES // weight.shape[1] // 2)  # pairs stay together
    peak = np.zeros(weight.shape[1], np.float32)
    for i in range(0, len(weight), step):
        np.maximum(peak, largest(weight[i : i + step]), out=peak)
    scales = _nonzero(peak / np.float32(127))
    values = np.empty(weight.shape, np.int8)
    for i in range(0, len(weight), step):
        values[i : i + step] = np.rint(weight[i : i + step] / scales)
    return Quantized(values, scales)


def _largest_pairs(rows: Array) -> Array:
    """The largest sum of two consecutive rows' values of equal sign, in each column."""
    if len(rows) % 2:
        rows = np.pad(rows, [(0, 1), (0, 0)])
    first, second = rows[0::2], rows[1::2]
    sums = np.abs(first + second)
    # Of values of different signs the larger one counts.
    np.maximum(sums, np.maximum(np.abs(first), np.abs(second)), out=sums)
    largest: Array = sums.max(axis=0)
    return largest


def row_groups(width: int) -> int:
    """The number of groups into which `quantize_grouped` divides `width` input channels."""
    return math.gcd(width, _GROUPS)


def quantize_grouped(weight: Array) -> Quantized:
    """Like `quantize_column_pairs`, by itself for each group of consecutive input channels.

    The scales are (groups, out).
    """
    parts = [quantize_column_pairs(part) for part in np.split(weight, row_groups(len(weight)))]
    values = np.concatenate([part.values for part in parts])
    return Quantized(values, np.stack([part.scales for part in parts]))


def quantize_blocks(rows: Rows, shape: tuple[int, int], *, bits: int, block: int) -> Quantized:
    """Quantize to symmetric blocks along the input axis, in the layout of MatMulNBits.

    `rows(start, stop)` returns rows of the weight, whose `shape` is (out, in). A weight is
    approximately (value - zero) * scale, with zero 128 for 8 bits and 8 for 4 bits. Values are
    uint8 (out, blocks, block * bits / 8), the low half of a byte first; scales are (out, blocks).
    The last block is padded with zeros.
    """
    out, width = shape
    blocks = -(-width // block)
    values = np.empty((out, blocks, block * bits // 8), np.uint8)
    scales = np.empty((out, blocks), np.float32)
    step = max(1, _CHUNK_VALUES // width)
    for start in range(0, out, step):
        part = rows(start, min(start + step, out))
        if width % block:
            part = np.pad(part, [(0, 0), (0, -width % block)])
        # A transposed weight stays a view: computing in its memory order and transposing only the
        # resulting bytes is faster.
        grouped = part.reshape(len(part), blocks, block)
        where = slice(start, start + len(part))
        encode = _encode_8 if bits == 8 else _encode_4
        values[where], scales[where] = encode(grouped)
    return Quantized(values, scales)


def _encode_8(grouped: Array) -> tuple[NDArray[np.uint8], Array]:
    scales = _nonzero(np.abs(grouped).max(axis=-1) / np.float32(127))
    return (np.rint(grouped / scales[..., None]) + 128).astype(np.uint8), scales


def _encode_4(grouped: Array) -> tuple[NDArray[np.uint8], Array]:
    scales = scales_4(grouped)
    steps = grouped / scales[..., None]
    np.rint(steps, out=steps)
    steps += 8
    np.clip(steps, 0, 15, out=steps)
    return pack_4(steps.astype(np.uint8)), scales


def scales_4(grouped: Array) -> Array:
    """Scales over the last axis that map the value of largest magnitude to exactly -8."""
    most, least = grouped.max(axis=-1), grouped.min(axis=-1)
    return _nonzero(np.where(most > -least, most, least) / np.float32(-8))


def pack_4(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack two 4-bit codes into each byte, the low half first."""
    packed: NDArray[np.uint8] = codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))
    return packed


def _nonzero(scales: Array) -> Array:
    # Any scale but zero works for all-zero weights; a tiny scale would overflow the division.
    tiny = np.float32(1e-30)
    safe: Array = np.where(np.abs(scales) < tiny, tiny, scales).astype(np.float32)
    return safe


def dequantize_columns(quantized: Quantized) -> Array:
    """The (in, out) weight of `quantize_columns`, `quantize_column_pairs` or `quantize_grouped`."""
    values = quantized.values
    scales = quantized.scales.reshape(-1, 1, values.shape[1])
    grouped = values.reshape(len(scales), -1, values.shape[1]).astype(np.float32)
    weight: Array = (grouped * scales).reshape(values.shape)
    return weight


def dequantize_blocks(quantized: Quantized, *, bits: int, width: int) -> Array:
    """The inverse of `quantize_blocks`: the (out, width) weight."""
    stored = quantized.values
    codes = stored.astype(np.float32)
    if bits == 4:
        halves = [(stored & 15).astype(np.float32), (stored >> 4).astype(np.float32)]
        codes = np.stack(halves, axis=-1).reshape(*stored.shape[:2], -1)
    centred = codes - np.float32(1 << (bits - 1))
    scaled = centred * quantized.scales[..., None]
    weight: Array = scaled.reshape(len(stored), -1)[:, :width]
    return weight


def fake_quantize_rows(x: Array, block: int | None = None) -> Array:
    """Quantize activations to 8 bits per row or block, as the operators do, and dequantize them."""
    rows, width = x.shape
    size = block or width
    padded = np.pad(x, [(0, 0), (0, -width % size)]).reshape(rows, -1, size)
    step = _nonzero(np.abs(padded).max(axis=-1, keepdims=True) / np.float32(127))
    rounded: Array = (np.rint(padded / step) * step).reshape(rows, -1)[:, :width]
    return rounded


def fake_quantize_shifted(x: Array, floor: float) -> Array:
    """Like `fake_quantize_rows` for activations of at least -`floor`.

    Each row has 255 steps in each of its groups (see `row_groups`).
    """
    shifted = (x + np.float32(floor)).reshape(len(x), row_groups(x.shape[1]), -1)
    step = _nonzero(shifted.max(axis=-1, keepdims=True) / np.float32(255))
    rounded: Array = (np.rint(shifted / step) * step - np.float32(floor)).reshape(x.shape)
    return rounded
