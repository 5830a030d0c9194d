"""Filters of logits, (vocab,) float32. A masked id has a logit of minus infinity.

Bans, bias and penalties modify the logits in place; the others return new ones. After a step of the
model nothing of numpy is in the CPU's caches, so a numpy call costs more than the work it does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

MASKED = np.float32(-np.inf)
_LOWEST = np.finfo(np.float32).min  # of logits that are not masked
_MIN_PENALTY = 1e-30  # dividing by less may overflow float32
_BLOCK = 256  # ids that are examined together
_CANDIDATES = 1024  # this many of the most likely ids nearly always suffice


def ban(logits: Vector, ids: Sequence[int] | NDArray[np.int64]) -> None:
    """Mask `ids`."""
    logits[np.asarray(ids, np.int64)] = MASKED


def ban_sequences(logits: Vector, seen: Sequence[int], sequences: Sequence[Sequence[int]]) -> None:
    """Mask the last id of each of `sequences` whose other ids are the latest ones in `seen`."""
    for *before, last in sequences:
        # As in transformers, a sequence one longer than the text does not count.
        if not before or (len(seen) > len(before) and list(seen[-len(before) :]) == before):
            logits[last] = MASKED


def add_bias(logits: Vector, bias: Mapping[int, float]) -> None:
    """Add a bias to the logits of individual ids."""
    logits[list(bias)] += np.fromiter(bias.values(), np.float32, len(bias))


def penalize_repetition(logits: Vector, seen: Sequence[int], penalty: float) -> None:
    """Divide positive and multiply negative logits of the ids seen (CTRL, arXiv 1909.05858)."""
    ids = np.fromiter(set(seen), np.int64)
    scores, penalty = logits[ids], max(penalty, _MIN_PENALTY)
    logits[ids] = np.where(scores > 0, scores / penalty, scores * penalty)


def penalize_presence_and_frequency(
    logits: Vector, answer: Sequence[int], presence: float, frequency: float
) -> None:
    """Subtract `presence` once and `frequency` per occurrence from ids in the answer (OpenAI)."""
    found = Counter(answer)  # np.unique runs more code, none of it cached after a step
    ids = np.fromiter(found, np.int64, len(found))
    counts = np.fromiter(found.values(), np.int64, len(found))
    logits[ids] -= (presence + frequency * counts).astype(np.float32)


def no_repeat_ngram(logits: Vector, seen: Sequence[int], size: int) -> None:
    """Mask every id that would repeat an n-gram of `size` ids."""
    if len(seen) < size:
        return
    ids = np.asarray(seen, np.int64)
    starts = len(ids) - size + 1
    same = np.ones(starts, bool)
    for offset in range(size - 1):
        same &= ids[offset : offset + starts] == ids[starts + offset]
    ban(logits, ids[size - 1 :][same])


def scale_temperature(logits: Vector, temperature: float) -> Vector:
    """Divide by the temperature, which is above 0."""
    shifted = logits - logits.max()  # so that a tiny temperature cannot overflow
    with np.errstate(over="ignore"):
        scaled: Vector = shifted / np.float32(max(temperature, 1e-30))
    return scaled


def dynamic_temperature(
    logits: Vector, temperature: float, spread: float, exponent: float
) -> float:
    """Return a temperature from `temperature - spread` to `temperature + spread`, by the entropy.

    The entropy is divided by that of equal probabilities and raised to `exponent`. Source: kalomaze
    (koboldcpp, 2023), as in llama.cpp.
    """
    alive = logits[logits > MASKED]
    if len(alive) < 2:
        return temperature
    shifted = alive - alive.max()
    weights = np.exp(shifted)
    total = float(weights.sum(dtype=np.float64))
    entropy = math.log(total) - float(weights @ shifted) / total
    low = max(0.0, temperature - spread)
    share = max(0.0, entropy) / math.log(len(alive))
    return float(low + (temperature + spread - low) * share**exponent)


def top_n_sigma_ids(logits: Vector, n: float) -> NDArray[np.intp]:
    """Return the ids within `n` standard deviations of the largest logit (arXiv 2411.07641)."""
    alive = logits[logits > MASKED]
    alive -= alive.mean()
    sigma = math.sqrt(float(alive @ alive) / len(alive))
    return np.flatnonzero(logits >= logits.max() - np.float32(n * sigma))


def top_k_ids(logits: Vector, k: int) -> NDArray[np.intp]:
    """Return the ids of the k largest logits (and of ties with the k-th) not masked, ascending."""
    k = min(k, len(logits))
    ids = _candidates(logits, k)
    scores = logits[ids]
    kth = np.partition(scores, len(ids) - k)[len(ids) - k]
    kept: NDArray[np.intp] = ids[scores >= max(kth, _LOWEST)]
    return kept


def _candidates(logits: Vector, k: int) -> NDArray[np.intp]:
    """Return a few ids, ascending, that include the k largest; all ids if blocks do not help.

    The k-th largest of the blocks' maxima is at most the k-th largest of all.
    """
    blocks = len(logits) // _BLOCK
    if k > blocks:
        return np.arange(len(logits))
    maxima = logits[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return np.flatnonzero(logits >= np.partition(maxima, blocks - k)[blocks - k])


def keep_top_p(logits: Vector, p: float) -> Vector:
    """Keep the smallest set of most likely ids whose probabilities reach p (arXiv 1904.09751)."""
    if p >= 1:
        return logits
    return _keep(logits, _smallest_set(-logits, softmax(logits), p))


def keep_min_p(logits: Vector, p: float) -> Vector:
    """Keep ids at least p times as likely as the most likely one."""
    if p <= 0:
        return logits
    return np.where(logits < logits.max() + np.float32(math.log(p)), MASKED, logits)


def keep_typical(logits: Vector, p: float) -> Vector:
    """Keep the smallest set of most typical ids whose probabilities reach p (arXiv 2202.00666)."""
    if p >= 1:
        return logits
    probabilities = softmax(logits)
    alive = np.flatnonzero(probabilities > 0)
    probabilities = probabilities[alive]
    surprise = -np.log(probabilities)
    distance = np.abs(surprise - float(probabilities @ surprise))
    return _keep(logits, alive[_smallest_set(distance, probabilities, p)])


def exclude_top_choices(logits: Vector, threshold: float) -> Vector:
    """Mask all ids with a probability of at least `threshold` except the least likely of them.

    With fewer than two such ids nothing changes. This is XTC; its chance is up to the caller.
    Source: p-e-w, "Exclude Top Choices" (text-generation-webui, pull request 6335, 2024).
    """
    probabilities = softmax(logits)
    top = np.flatnonzero(probabilities >= threshold)
    if len(top) < 2:
        return logits
    left = logits.copy()
    left[top[top != top[probabilities[top].argmin()]]] = MASKED
    return left


def keep_low_surprise(logits: Vector, bits: float) -> Vector:
    """Keep ids whose surprise, -log2 of the probability, is at most `bits`; at least the likeliest.

    This is the truncation of Mirostat 2 (arXiv 2007.14966).
    """
    highest = logits.max()
    least = min(highest, np.float32(_log_sum(logits) - bits * math.log(2)))
    return np.where(logits < least, MASKED, logits)


def surprise(logits: Vector, token: int) -> float:
    """Return -log2 of the probability of `token`, in bits."""
    return (_log_sum(logits) - float(logits[token])) / math.log(2)


def _log_sum(logits: Vector) -> float:
    highest = logits.max()
    return float(highest) + math.log(np.exp(logits - highest).sum(dtype=np.float64))


def _smallest_set(
    keys: NDArray[np.floating], probabilities: NDArray[np.float64], p: float
) -> NDArray[np.intp]:
    """Return the indices of the smallest `keys` that together reach `p`; ties in index order."""
    if len(keys) > _CANDIDATES:  # sorting all of them takes ten times as long and is rarely needed
        near = np.flatnonzero(keys <= np.partition(keys, _CANDIDATES - 1)[_CANDIDATES - 1])
        if probabilities[near].sum() >= p:
            return near[_smallest_set_sorted(keys[near], probabilities[near], p)]
    return _smallest_set_sorted(keys, probabilities, p)


def _smallest_set_sorted(
    keys: NDArray[np.floating], probabilities: NDArray[np.float64], p: float
) -> NDArray[np.intp]:
    order = np.argsort(keys, kind="stable")
    return order[: np.searchsorted(np.cumsum(probabilities[order]), p) + 1]


def _keep(logits: Vector, ids: NDArray[np.intp]) -> Vector:
    kept = np.full_like(logits, MASKED)
    kept[ids] = logits[ids]
    return kept


def softmax(logits: Vector) -> NDArray[np.float64]:
    """Return probabilities; exponentials are float32 for speed, their sum is float64."""
    exponentials = np.exp(logits - logits.max())
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(dtype=np.float64)
    return probabilities


def log_softmax(logits: Vector) -> Vector:
    """Return log-probabilities; their exponentials' sum is float64, as in `softmax`."""
    shifted: Vector = logits - logits.max()
    return shifted - np.float32(math.log(np.exp(shifted).sum(dtype=np.float64)))


def draw(logits: Vector, uniform: float) -> int:
    """Return the id at `uniform` (0 to 1) of the cumulative distribution over ascending ids."""
    weights = np.exp(logits - logits.max())
    if len(logits) <= _BLOCK:
        cumulated = np.cumsum(weights, dtype=np.float64)
        return _first_above(cumulated, uniform * cumulated[-1])
    # Sum by blocks first: the cumulative sum of all ids would dominate the time.
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK), dtype=np.float64))
    point = uniform * sums[-1]
    block = _first_above(sums, point)
    before = sums[block - 1] if block else 0.0
    start = block * _BLOCK
    within = before + np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    return start + _first_above(within, point)


def _first_above(cumulated: NDArray[np.float64], point: float) -> int:
    """Return the first index above `point`; if rounding leaves none, the first that is maximal."""
    above = int(np.searchsorted(cumulated, point, side="right"))
    return above if above < len(cumulated) else int(np.searchsorted(cumulated, cumulated[-1]))
