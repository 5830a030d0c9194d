"""The scheduler's requests and their events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from issun.runtime.decoding.generate import Logprob, Segment
from issun.runtime.decoding.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Progress:
    """How many tokens of the prompt have been processed."""

    read: int
    total: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities of the prompt's tokens, None for the first; empty if not requested."""

    logprobs: list[Logprob | None]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed."""

    error: Exception


Event = Progress | Scored | Segment | Failed


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """A prompt to answer; `emit` receives its events in the scheduler's thread.

    `score` n asks for the log-probabilities of the prompt's tokens and the n most likely ones at
    each position; without `answer` nothing is generated after that. The last `continued` tokens
    of the prompt are the beginning of the answer, which the client already has. `texts` are those
    of the conversation so far. `adapter` is the name of a loaded one.
    """

    prompt: list[int]
    params: SamplingParams
    emit: Callable[[Event], object]
    score: int | None = None
    answer: bool = True
    continued: int = 0
    texts: tuple[str, ...] = ()
    adapter: str | None = None
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)
