"""Samplers with given random numbers, and logits with given probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from issun.runtime.decoding import filters
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.sampling import Sampler, SamplingParams, Vocabulary

MASKED = -np.inf
UNK, EOS = 0, 1


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


def of(*probabilities: float) -> Vector:
    """Return logits whose softmax is `probabilities`."""
    return np.log(np.array(probabilities)).astype(np.float32)


def alive(logits: Vector) -> list[int]:
    return [int(i) for i in np.flatnonzero(logits > MASKED)]


class FixedRandom:
    """A random generator that returns given numbers."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def sampler(
    *numbers: float, rows: int = 5, pieces: int | None = None, eos: int | None = EOS, **params: Any
) -> Sampler:
    ends = () if eos is None else (eos,)
    vocabulary = Vocabulary(rows=rows, pieces=pieces or rows, ends=ends, unk=UNK)
    return Sampler(SamplingParams(**params), vocabulary, FixedRandom(*numbers))  # type: ignore[arg-type]


def probabilities_of(one: Sampler, logits: Vector) -> list[float]:
    """Return the distribution that `one` samples from, rounded to four decimals."""
    warped, ids = one._warp(one._process(logits, [], []))
    found = np.zeros(len(logits))
    found[slice(None) if ids is None else ids] = filters.softmax(warped)
    return [round(float(p), 4) for p in found]


def naive_softmax(logits: Sequence[float]) -> list[float]:
    highest = np.float32(max(logits))
    weights = [math.exp(np.float32(v) - highest) for v in logits]
    total = math.fsum(weights)
    return [w / total for w in weights]
