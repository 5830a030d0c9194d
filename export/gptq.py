"""GPTQ: quantizes columns in order; each rounding error is compensated in the columns after it.

Source: Frantar et al., "GPTQ" (2022). The grid is the symmetric one of MatMulNBits; each block
gets the candidate scale with the least loss.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from issun.export.quantize import Quantized, pack_4, scales_4
from issun.export.weights import Array

DAMPING = 0.01  # relative to the mean of the Hessian's diagonal
_BASE_SIZE = 256  # up to this size the recursive inverse calls numpy
_SHRINKS = np.linspace(0.7, 1.0, 13, dtype=np.float32)  # of the scale that clips nothing


def hessian(inputs: Array) -> Array:
    """X^T X / rows of a linear layer's inputs (rows, in), damped to be invertible."""
    product: Array = inputs.T @ inputs / np.float32(len(inputs))
    diagonal = np.diag_indices(len(product))
    product[diagonal] += DAMPING * product[diagonal].mean() + np.float32(1e-8)
    return product


def quantize_gptq(weight: Array, hess: Array, *, block: int) -> Quantized:
    """Quantize the (out, in) `weight` to 4-bit blocks, given the (in, in) Hessian of its inputs.

    The layout is that of `quantize_blocks`. `weight` is overwritten.
    """
    out, width = weight.shape
    blocks = -(-width // block)
    factor = _inverse_factor(hess)
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


def _inverse_factor(hess: Array) -> Array:
    """The upper triangular U for which U^T U is the inverse of `hess`.

    U is the inverse of R, where `hess` = R R^T and R is upper triangular: the Cholesky factor with
    rows and columns in reverse order. Inverting `hess` itself would square the rounding errors.
    """
    upper = np.ascontiguousarray(_cholesky(hess[::-1, ::-1])[::-1, ::-1])
    _invert_upper(upper)
    return upper


def _invert_upper(upper: Array) -> None:
    """Invert an upper triangular matrix in place, recursively by halves.

    A general inverse needs three times the work, and copies that would set an export's peak memory.
    """
    size = len(upper)
    if size <= _BASE_SIZE:
        upper[:] = np.triu(np.linalg.inv(upper))
        return
    half = size // 2
    _invert_upper(upper[:half, :half])
    _invert_upper(upper[half:, half:])
    upper[:half, half:] = -(upper[:half, :half] @ upper[:half, half:]) @ upper[half:, half:]


def _cholesky(hess: Array) -> Array:
    """The Cholesky factor, with more damping if rounding requires it; raises LinAlgError."""
    diagonal = np.diag_indices(len(hess))
    damping = DAMPING * np.float32(hess[diagonal].mean())
    for times in (0, 10):
        with suppress(np.linalg.LinAlgError):
            return _damped_cholesky(hess, diagonal, times * damping)
    return _damped_cholesky(hess, diagonal, 100 * damping)


def _damped_cholesky(
    hess: Array, diagonal: tuple[NDArray[np.intp], ...], damping: np.float32
) -> Array:
    damped = hess.copy()
    damped[diagonal] += damping
    factor: Array = np.linalg.cholesky(damped)
    return factor


def _best_scale(part: Array, importance: Array) -> Array:
    """For each row the candidate scale with the least weighted loss; most candidates clip."""
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
