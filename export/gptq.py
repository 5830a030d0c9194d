"""4-bit weights one column after the other: what rounding loses, the columns behind make good.

Source: Frantar et al., "GPTQ" (2022). The grid is the symmetric one of MatMulNBits; each block's
scale is the one of a few that loses least.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from issun.export.quantize import Quantized, pack_4, scales_4
from issun.export.weights import Array

DAMPING = 0.01  # of the mean of the Hessian's diagonal
_SMALL = 256  # columns of a matrix that is inverted at once
_SHRINKS = np.linspace(0.7, 1.0, 13, dtype=np.float32)  # of the scale that reaches the largest


def hessian(inputs: Array) -> Array:
    """X^T X / rows of a linear's inputs (rows, in), damped so that it can be inverted."""
    found: Array = inputs.T @ inputs / np.float32(len(inputs))
    diagonal = np.diag_indices(len(found))
    found[diagonal] += DAMPING * found[diagonal].mean() + np.float32(1e-8)
    return found


def quantize_gptq(weight: Array, second: Array, *, block: int) -> Quantized:
    """The (out, in) `weight` in 4-bit blocks, by the (in, in) Hessian `second` of its inputs.

    The layout is `quantize_blocks`'; `weight` is used up.
    """
    out, width = weight.shape
    blocks = -(-width // block)
    factor = _inverse_factor(second)
    importance = np.square(np.diag(factor)) ** np.float32(-1)
    codes = np.full((out, blocks * block), 8, np.uint8)
    scales = np.empty((out, blocks), np.float32)
    for number in range(blocks):
        start, stop = number * block, min((number + 1) * block, width)
        part, inside = weight[:, start:stop], factor[start:stop, start:stop]
        scale = _best_scale(part, importance[start:stop])
        losses = np.empty_like(part)
        for i in range(stop - start):
            column = part[:, i]
            code = np.clip(np.rint(column / scale) + 8, 0, 15)
            codes[:, start + i] = code
            losses[:, i] = (column - (code - 8) * scale) / inside[i, i]
            part[:, i + 1 :] -= np.outer(losses[:, i], inside[i, i + 1 :])
        weight[:, stop:] -= losses @ factor[start:stop, stop:]
        scales[:, number] = scale
    return Quantized(pack_4(codes.reshape(out, blocks, block)), scales)


def _inverse_factor(second: Array) -> Array:
    """Upper triangular U with U^T U the inverse of `second`.

    The inverse of R, where `second` = R R^T with R upper: Cholesky's factor of the matrix read from
    its other end. Inverting `second` itself would square the rounding errors.
    """
    upper = np.ascontiguousarray(_cholesky(second[::-1, ::-1])[::-1, ::-1])
    _invert_upper(upper)
    return upper


def _invert_upper(upper: Array) -> None:
    """Invert an upper triangular matrix in its place, half by half.

    A general inverse takes three times the work, and copies that set the peak of an export.
    """
    size = len(upper)
    if size <= _SMALL:
        upper[:] = np.triu(np.linalg.inv(upper))
        return
    half = size // 2
    _invert_upper(upper[:half, :half])
    _invert_upper(upper[half:, half:])
    upper[:half, half:] = -(upper[:half, :half] @ upper[:half, half:]) @ upper[half:, half:]


def _cholesky(second: Array) -> Array:
    """Cholesky's factor, with more damping where rounding asks for it; raises LinAlgError."""
    diagonal = np.diag_indices(len(second))
    more = DAMPING * np.float32(second[diagonal].mean())
    for times in (0, 10):
        with suppress(np.linalg.LinAlgError):
            return _damped_cholesky(second, diagonal, times * more)
    return _damped_cholesky(second, diagonal, 100 * more)


def _damped_cholesky(
    second: Array, diagonal: tuple[NDArray[np.intp], ...], damping: np.float32
) -> Array:
    damped = second.copy()
    damped[diagonal] += damping
    factor: Array = np.linalg.cholesky(damped)
    return factor


def _best_scale(part: Array, importance: Array) -> Array:
    """For each row the scale, of some that clip a little, with the least weighted loss."""
    full = scales_4(part)
    best, least = full, np.full(len(part), np.inf, np.float32)
    for shrink in _SHRINKS:
        for sign in (1, -1):
            scale = full * shrink * sign
            codes = np.clip(np.rint(part / scale[:, None]), -8, 7)
            loss = (np.square(part - codes * scale[:, None]) * importance).sum(axis=1)
            better = loss < least
            best, least = np.where(better, scale, best), np.where(better, loss, least)
    return best
