"""Quantized integers and scales, checked by hand and against error bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from issun.export import quantize
from issun.export.quantize import (
    Quantized,
    dequantize_columns,
    fake_quantize_shifted,
    quantize_blocks,
    quantize_column_pairs,
    quantize_columns,
    quantize_grouped,
)

Array = NDArray[np.float32]

weights = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.integers(1, 40)),
    elements=st.floats(-1000, 1000, width=32),
)


def matrix(*rows: list[float]) -> Array:
    return np.array(rows, np.float32)


def blocks_of(weight: Array, *, bits: int, block: int) -> Quantized:
    """Quantize the (out, in) `weight` to blocks."""
    return quantize_blocks(
        lambda start, stop: weight[start:stop], weight.shape, bits=bits, block=block
    )


def decode_blocks(quantized: Quantized, width: int, bits: int) -> NDArray[np.float64]:
    """(out, in) weights as MatMulNBits decodes them."""
    codes: Any = quantized.values
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1)
    steps = codes.astype(np.float64) - (8 if bits == 4 else 128)
    decoded = steps * quantized.scales[..., None]
    return decoded.reshape(len(decoded), -1)[:, :width]


# --- by hand ---


def test_columns() -> None:
    got = quantize_columns(matrix([127, 1, 0], [-63.4, -254, 0], [0.6, 3, 0]))
    assert got.values.dtype == np.int8
    assert got.values.tolist() == [[127, 0, 0], [-63, -127, 0], [1, 2, 0]]
    assert got.scales[:2].tolist() == [1, 2]
    assert got.scales[2] > 0


def test_8_bit_blocks() -> None:
    got = blocks_of(matrix([127, -127, 0.4, 0.6, 254, 2, -3, 0]), bits=8, block=4)
    assert got.values.dtype == np.uint8
    # Halves are rounded to even: -1.5 becomes -2.
    assert got.values.tolist() == [[[255, 1, 128, 129], [255, 129, 126, 128]]]
    assert got.scales.tolist() == [[1, 2]]


def test_4_bit_blocks_have_the_low_half_first() -> None:
    # The largest is -8, so the scale is 1 and each value is its code minus 8.
    got = blocks_of(matrix([-8, 7, 0, 1, -1, 3.4, -5, 2]), bits=4, block=8)
    assert got.scales.tolist() == [[1]]
    assert got.values.tolist() == [[[0 | 15 << 4, 8 | 9 << 4, 7 | 11 << 4, 3 | 10 << 4]]]


def test_4_bit_scale_maps_the_largest_magnitude_to_minus_8() -> None:
    got = blocks_of(matrix([4, -3.5, 0, 1]), bits=4, block=4)
    assert got.scales.tolist() == [[-0.5]]
    assert decode_blocks(got, 4, 4).tolist() == [[4, -3.5, 0, 1]]


@pytest.mark.parametrize("bits", [4, 8])
def test_the_last_block_is_padded_with_zeros(bits: int) -> None:
    got = blocks_of(np.ones((3, 5), np.float32), bits=bits, block=4)
    assert got.values.shape == (3, 2, 4 * bits // 8)
    padded = decode_blocks(got, 8, bits)
    assert padded[:, :5] == pytest.approx(1)
    assert np.all(padded[:, 5:] == 0)


@pytest.mark.parametrize("tiny", [0, 1e-38, 1e-45])
def test_zeros_and_tiny_weights(tiny: float) -> None:
    weight = np.full((4, 8), tiny, np.float32)
    weight[0, 0] = -tiny
    columns, pairs = quantize_columns(weight), quantize_column_pairs(weight)
    for got, steps in (
        (columns, columns.values.astype(int)),
        (pairs, pairs.values.astype(int)),
        (blocks_of(weight, bits=8, block=4), None),
        (blocks_of(weight, bits=4, block=4), None),
    ):
        assert np.all(np.isfinite(got.scales))
        assert np.all(got.scales != 0)
        if steps is not None:
            assert np.all(np.abs(steps * got.scales) <= 1e-30)
    for bits in (4, 8):
        assert np.all(np.abs(decode_blocks(blocks_of(weight, bits=bits, block=4), 8, bits)) < 1e-30)


@pytest.mark.parametrize("bits", [4, 8])
def test_nan_and_infinity_show_in_the_scales(bits: int) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        weight = np.ones((2, 8), np.float32)
        weight[1, 5] = bad
        with np.errstate(all="ignore"):
            got = blocks_of(weight, bits=bits, block=4)
        assert np.isfinite(got.scales).tolist() == [[True, True], [True, False]]


# --- bounds ---


@settings(deadline=None)
@given(weights)
def test_columns_are_within_half_a_step(weight: Array) -> None:
    got = quantize_columns(weight)
    error = np.abs(got.values.astype(np.float64) * got.scales - weight)
    assert np.all(error <= got.scales * 0.5001)
    assert got.values.min() >= -127
    for column in np.flatnonzero(np.abs(weight).max(axis=0) > 1e-20):
        assert np.abs(got.values[:, column].astype(int)).max() == 127


def largest_pair(values: NDArray[Any]) -> int:
    """The largest magnitude of the sum of two consecutive rows' values of one sign."""
    values = np.pad(values.astype(int), [(0, len(values) % 2), (0, 0)])
    parts = [np.maximum(sign * values, 0).reshape(-1, 2, values.shape[1]) for sign in (1, -1)]
    return max(int(part.sum(axis=1).max()) for part in parts)


def test_column_pairs_by_hand() -> None:
    # 100 + 154 is the largest sum of a pair of rows; different signs do not add up.
    weight = matrix([100, 100, 3], [154, -154, 0], [-20, 77, 0], [-30, 0, 0], [8, 0, -254])
    got = quantize_column_pairs(weight)
    np.testing.assert_allclose(got.scales, [2, 154 / 127, 2], rtol=1e-6)
    expected = [[50, 82, 2], [77, -127, 0], [-10, 64, 0], [-15, 0, 0], [4, 0, -127]]
    np.testing.assert_array_equal(got.values, expected)


@settings(deadline=None)
@given(weights)
def test_sums_of_pairs_times_255_fit_into_16_bits(weight: Array) -> None:
    got = quantize_column_pairs(weight)
    error = np.abs(got.values.astype(np.float64) * got.scales - weight)
    assert np.all(error <= got.scales * 0.5001)
    assert largest_pair(got.values) <= 128
    assert 255 * largest_pair(got.values) < 1 << 15


@settings(deadline=None)
@given(weights, st.sampled_from([2, 4, 16]))
def test_8_bit_blocks_are_within_half_a_step(weight: Array, block: int) -> None:
    got = blocks_of(weight, bits=8, block=block)
    error = np.abs(decode_blocks(got, weight.shape[1], 8) - weight)
    step = np.repeat(got.scales, block, axis=1)[:, : weight.shape[1]]
    assert np.all(error <= step * 0.5001)
    assert got.values.min() >= 1


@settings(deadline=None)
@given(weights, st.sampled_from([2, 4, 16]))
def test_4_bit_blocks_are_within_half_a_step_except_at_plus_8(weight: Array, block: int) -> None:
    got = blocks_of(weight, bits=4, block=block)
    decoded = decode_blocks(got, weight.shape[1], 4)
    step = np.repeat(np.abs(got.scales), block, axis=1)[:, : weight.shape[1]]
    error = np.abs(decoded - weight)
    # The range is -8 to 7: a value at the opposite end is clipped by up to one step.
    assert np.all(error <= step * 1.0001)
    far = np.abs(weight) > 7.5 * step
    assert np.all((error <= step * 0.5001) | far)
    # The largest magnitude of a block is exact.
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], block):
            part = slice(start, start + block)
            top = np.abs(weight[row, part]).argmax()
            if abs(weight[row, part][top]) > 1e-20:
                assert decoded[row, part][top] == pytest.approx(weight[row, part][top], rel=1e-6)


@settings(deadline=None)
@given(weights, st.integers(1, 60))
def test_chunks_give_the_same_result_as_the_whole(weight: Array, values: int) -> None:
    whole = [
        quantize_columns(weight),
        quantize_column_pairs(weight),
        blocks_of(weight, bits=8, block=4),
        blocks_of(weight, bits=4, block=4),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "_CHUNK_VALUES", values)
        parts = [
            quantize_columns(weight),
            quantize_column_pairs(weight),
            blocks_of(weight, bits=8, block=4),
            blocks_of(weight, bits=4, block=4),
        ]
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.values, other.values)
        assert np.array_equal(one.scales, other.scales)


def test_rows_are_read_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_CHUNK_VALUES", 64)
    reads: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> Array:
        reads.append((start, stop))
        return np.ones((stop - start, 16), np.float32)

    quantize_blocks(rows, (10, 16), bits=8, block=16)
    assert reads == [(0, 4), (4, 8), (8, 10)]


def test_groups_of_channels_have_their_own_scales() -> None:
    # Four groups of two channels; in one column each, 127 is the largest of its group.
    weight = matrix([127], [-3], [254], [-4], [12.7], [-0.2], [0], [0])
    got = quantize_grouped(weight)
    np.testing.assert_allclose(got.scales[:3], [[1], [2], [0.1]], rtol=1e-6)
    np.testing.assert_array_equal(got.values[:6], [[127], [-3], [127], [-2], [127], [-2]])
    np.testing.assert_allclose(dequantize_columns(got), weight, atol=1e-6)


def test_a_large_activation_spoils_its_own_group_only() -> None:
    row = matrix([255, 0.4, 0.255, 0.1, 2.55, 1, 0, 0])
    got = fake_quantize_shifted(row, 0.0)
    np.testing.assert_allclose(got, [[255, 0, 0.255, 0.1, 2.55, 1, 0, 0]], atol=1e-5)
