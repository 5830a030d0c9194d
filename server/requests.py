"""What is asked of the scheduler, and what it tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from issun.runtime.generate import Logprob, Segment
from issun.runtime.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a prompt has been read."""

    read: int
    total: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Raw log-probabilities of the prompt's own tokens; None for the first, none if not asked."""

    logprobs: list[Logprob | None]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended with an error."""

    error: Exception


Event = Progress | Scored | Segment | Failed


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """A prompt to be answered; `emit` gets its events, in the scheduler's thread.

    With `score` n the prompt's tokens are scored with the n likeliest ones each. Without `answer`
    it ends there. With `continued` n the prompt's last n tokens are the beginning of the answer,
    which a reader has already.
    """

    prompt: list[int]
    params: SamplingParams
    emit: Callable[[Event], object]
    score: int | None = None
    answer: bool = True
    continued: int = 0
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)
