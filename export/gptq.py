"""GPTQ: quantizes columns in order; later columns make up for the rounding errors of earlier ones.

Source: Frantar et al., "GPTQ" (2022), computed as in Chen et al., "The geometry of LLM
quantization" (2025): from the Cholesky factor of the Hessian, without its inverse. The grid is the
symmetric one of MatMulNBits; each block gets the scale whose codes lose least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from issun.export.quantize import Quantized, pack_4, scales_4
from issun.export.weights import Array

DAMPING = 0.01  # relative to the mean of the Hessian's diagonal
_SHRINKS = (1.0, 0.9, 0.8)  # of the scale that clips nothing
_PANEL = 256  # columns of the Cholesky factor computed at a time
_COLUMNS = 1024  # output columns quantized at a time, so that a block stays in the cache
_ROWS = 8  # rows of a block between two matrix products

Indices = NDArray[np.intp]


def hessian(inputs: Array) -> Array:
    """X^T X / rows of a linear layer's inputs (rows, in), damped to be invertible."""
    product: Array = inputs.T @ inputs
    product /= np.float32(len(inputs))
    diagonal = np.diag_indices(len(product))
    product[diagonal] += DAMPING * product[diagonal].mean() + np.float32(1e-8)
    return product


@dataclass(frozen=True, slots=True)
class Factor:
    """The Cholesky factor of a Hessian, for blocks of one size.

    `blocks` are pairs of a block's number and its channels. Both are sorted by the channels' mean
    squares, since the last channels are quantized first, and others make up for their errors.
    `lower` is the factor for the channels in that order, (in, in); what is above its diagonal is
    undefined.
    """

    block: int
    blocks: list[tuple[int, Indices]]
    lower: Array


def factorize(hess: Array, *, block: int) -> Factor:
    """Factorize the (in, in) Hessian of a linear layer's inputs; raises LinAlgError.

    All linear layers with the same inputs share the factor.
    """
    energies = np.diag(hess)
    blocks = []
    for number, start in enumerate(range(0, len(hess), block)):
        own = energies[start : start + block]
        blocks.append((number, start + np.argsort(own, kind="stable")))
    blocks.sort(key=lambda pair: float(energies[pair[1]].sum()))
    order = np.concatenate([channels for _, channels in blocks])
    for more in (0, 10, 100):  # rounding may require more damping
        lower = hess[np.ix_(order, order)]
        lower[np.diag_indices(len(lower))] += np.float32(more * DAMPING) * energies.mean()
        try:
            _cholesky(lower)
        except np.linalg.LinAlgError:
            if more == 100:
                raise
        else:
            break
    return Factor(block, blocks, lower)


def _cholesky(matrix: Array) -> None:
    """Replace the lower triangle of `matrix` by its Cholesky factor, without a copy."""
    for start in range(0, len(matrix), _PANEL):
        stop = min(start + _PANEL, len(matrix))
        panel = matrix[start:, start:stop]
        panel -= matrix[start:, :start] @ matrix[start:stop, :start].T
        top = np.linalg.cholesky(panel[: stop - start].astype(np.float64))
        panel[: stop - start] = top
        panel[stop - start :] = panel[stop - start :] @ np.linalg.inv(top).T.astype(np.float32)


def quantize_gptq(weight: Array, factor: Factor) -> Quantized:
    """Quantize the (out, in) `weight` to 4-bit blocks; the layout is that of `quantize_blocks`."""
    out, block = len(weight), factor.block
    order = np.concatenate([channels for _, channels in factor.blocks])
    codes = np.full((out, len(factor.blocks) * block), 8, np.uint8)
    scales = np.empty((out, len(factor.blocks)), np.float32)
    for start in range(0, out, _COLUMNS):
        part = slice(start, min(start + _COLUMNS, out))
        errors = weight.T[order, part]  # weights, replaced by their rounding errors block by block
        stop = len(order)
        for number, channels in reversed(factor.blocks):
            rows = slice(stop - len(channels), stop)
            later = factor.lower[stop:, rows].T @ errors[stop:]
            found, scale = _quantize_block(errors[rows], later, factor.lower[rows, rows])
            errors[rows] -= found * scale
            codes[part, channels] = found.T + 8
            scales[part, number] = scale
            stop = rows.start
    return Quantized(pack_4(codes.reshape(out, -1, block)), scales)


def _quantize_block(weight: Array, later: Array, lower: Array) -> tuple[Array, Array]:
    """Codes (rows, columns) and scales (columns,) of a block of the weight (rows, columns).

    `later` is the factor times the errors of the channels that are already quantized.
    """
    diagonal = lower.diagonal()
    unit, energies = (np.tril(lower) / diagonal).T, np.square(diagonal)
    target: Array = (
        unit @ weight + later / diagonal[:, None]
    )  # unit @ codes * scale shall be close to it
    full = scales_4((np.linalg.inv(unit) @ target).T)
    scale, least = full, np.full(len(full), np.inf, np.float32)
    codes = np.zeros_like(weight)

    def consider(candidate: Array) -> None:
        nonlocal scale, least, codes
        found, loss = _round(target / candidate, unit, energies)
        loss *= np.square(candidate)
        better = loss < least
        scale, least = np.where(better, candidate, scale), np.where(better, loss, least)
        np.copyto(codes, found, where=better)

    for shrink in _SHRINKS:
        consider(full * np.float32(shrink))
    product = unit @ codes
    norm = np.einsum("i,ij,ij->j", energies, product, product)
    fitted = np.einsum("i,ij,ij->j", energies, target, product) / np.maximum(
        norm, np.float32(1e-30)
    )
    consider(np.where(norm > 0, fitted, scale))
    return codes, scale


def _round(steps: Array, unit: Array, energies: Array) -> tuple[Array, Array]:
    """Codes for which unit @ codes is close to `steps` (rows, columns), and each column's loss.

    From the last row to the first; each makes up for the errors of those after it. `steps` is
    overwritten with the differences.
    """
    codes = np.empty_like(steps)
    for start in reversed(range(0, len(steps), _ROWS)):
        stop = min(start + _ROWS, len(steps))
        steps[start:stop] -= unit[start:stop, stop:] @ codes[stop:]
        for i in reversed(range(start, stop)):
            step, code = steps[i], codes[i]
            step -= unit[i, i + 1 : stop] @ codes[i + 1 : stop]
            np.rint(step, out=code)
            np.maximum(code, -8, out=code)
            np.minimum(code, 7, out=code)
            step -= code
    return codes, np.einsum("i,ij,ij->j", energies, steps, steps)
