"""Continuous batching: requests join and leave at every step, in one thread that owns the model."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from issun.runtime.decoder import PREFILL_CHUNK, IssunDecoder, Logits, cut
from issun.runtime.generate import Logprob, Segment, Writer, check_prompt
from issun.runtime.model import Model
from issun.runtime.sampling import SamplingParams, Vector, top_logprobs
from issun.server.errors import DeadlineError, QueueFullError, ServerError, UnavailableError
from issun.server.metrics import Metrics
from issun.server.slots import Slots

_CHUNK_BESIDE = 32  # tokens of a prompt that are read between two steps of running answers
_LOG = logging.getLogger("issun.server")


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
    it ends there.
    """

    prompt: list[int]
    params: SamplingParams
    emit: Callable[[Event], object]
    score: int | None = None
    answer: bool = True
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)


class Scheduler:
    """Answers many requests at a time; `submit` and `cancel` may be called from any thread."""

    def __init__(
        self, model: Model, metrics: Metrics, *, slots: int, max_queue: int, deadline: float
    ) -> None:
        if not isinstance(model.decoder, IssunDecoder):
            raise ServerError("A bundle of Optimum's graphs cannot be served: export it anew.")
        self._model, self._decoder, self._metrics = model, model.decoder, metrics
        self._slots = Slots(model.decoder, slots)
        self._max_queue, self._deadline = max_queue, deadline
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()  # guarded by _changed, as is _ends
        self._ends = math.inf  # when running answers must have ended
        self._reading: _Reading | None = None
        self._running: list[_Running] = []  # each in the slot of its place
        self._held = ExitStack()  # the model, from start to end
        self._thread = threading.Thread(target=self._run, name="issun-scheduler", daemon=True)
        metrics.watch("issun_queue_length", "Requests that wait.", lambda: self.queued)
        metrics.watch("issun_running", "Requests that are worked on.", lambda: self.running)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests are read or answered."""
        return len(self._running) + (self._reading is not None)

    def start(self) -> None:
        """Begin to work; raises BusyError while the model is used elsewhere."""
        self._held.enter_context(self._model.busy())
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> None:
        """Put all `requests` into the queue, or none.

        Raises QueueFullError, UnavailableError when the server is ending, and what
        `check_prompt` raises.
        """
        for request in requests:
            check_prompt(self._decoder, request.prompt)
        with self._changed:
            if self._ends < math.inf:
                raise UnavailableError("The server is ending.")
            free = max(0, self._slots.count - self.running)
            if len(self._waiting) + len(requests) > self._max_queue + free:
                self._metrics.refused.inc()
                raise QueueFullError(
                    "{waiting} requests wait already, at most {limit} may: try again in "
                    "{retry_after} s.",
                    waiting=len(self._waiting),
                    limit=self._max_queue,
                    retry_after=1 + len(self._waiting) // self._slots.count,
                )
            self._waiting.extend(requests)
            self._changed.notify()

    def cancel(self, requests: Sequence[Request]) -> None:
        """Give `requests` up as far as they have not ended."""
        for request in requests:
            request.cancelled = True
        with self._changed:
            self._changed.notify()

    def stop(self, grace: float = 0.0) -> None:
        """Take no more requests, end those that wait now and those that run in `grace` seconds."""
        with self._changed:
            self._ends = min(self._ends, time.monotonic() + grace)
            self._changed.notify()

    def join(self) -> None:
        """Wait until nothing runs any more; the model can be used again then."""
        self._thread.join()

    def _run(self) -> None:
        with self._held:
            while self._wait():
                self._drop()
                self._admit()
                self._read()
                self._decode()
            self._slots.cache.close()

    def _wait(self) -> bool:
        """Wait for work; False when there is none and will be none."""
        with self._changed:
            while not (self._waiting or self._reading or self._running):
                if self._ends < math.inf:
                    return False
                self._changed.wait()
            return True

    def _drop(self) -> None:
        """End what was cancelled, took too long, or outlives the server."""
        now = time.monotonic()
        with self._changed:
            ending = self._ends < math.inf
            self._waiting = deque(r for r in self._waiting if not self._ended(r, now, ending))
        ending = now > self._ends
        if self._reading and self._ended(self._reading.request, now, ending):
            self._reading = None
            self._slots.drop()
        for place in reversed(range(len(self._running))):
            if self._ended(self._running[place].request, now, ending):
                self._leave(place)

    def _ended(self, request: Request, now: float, ending: bool) -> bool:
        if request.cancelled:
            self._metrics.answers.labels("cancelled").inc()
        elif now > request.submitted + self._deadline:
            error = DeadlineError("The answer took more than {limit:g} s.", limit=self._deadline)
            self._fail(request, error)
        elif ending:
            self._fail(request, UnavailableError("The server is ending."))
        else:
            return False
        return True

    def _admit(self) -> None:
        """Give the next request a slot; one prompt is read at a time."""
        if self._reading or self._slots.full:
            return
        with self._changed:
            request = self._waiting.popleft() if self._waiting else None
        if request is None:
            return
        try:
            # Every row of a prompt that is scored is needed, so nothing is reused.
            known = self._slots.join(request.prompt, reuse=request.score is None)
            writer = self._model.writer(request.prompt, request.params, known)
        except Exception as error:
            self._slots.drop()
            self._fail(request, error)
            return
        self._reading = _Reading(request, writer, request.prompt[known:])
        self._metrics.prompt_tokens.inc(len(request.prompt))
        self._metrics.reused_tokens.inc(known)

    def _read(self) -> None:
        """Read a piece of the prompt, a short one where answers are running."""
        reading = self._reading
        if reading is None:
            return
        chunk = next(cut(reading.rest, _CHUNK_BESIDE if self._running else PREFILL_CHUNK))
        last = len(chunk) == len(reading.rest)
        rows = range(len(chunk)) if reading.scores else range(len(chunk) - last, len(chunk))
        try:
            logits = self._decoder.forward(
                self._slots.cache, [chunk], rows, first=self._slots.active
            )
            reading.add(chunk, logits)
        except Exception as error:
            self._reading = None
            self._slots.drop()
            self._fail(reading.request, error)
            return
        if last:
            self._reading = None
            self._begin(reading, logits[-1])

    def _begin(self, reading: _Reading, logits: Vector) -> None:
        """Let what was read begin its answer."""
        request = reading.request
        if reading.scores or not request.answer:  # what ends here must be told its end
            request.emit(Scored(reading.logprobs))
        if not request.answer:
            self._slots.drop()
            self._metrics.answers.labels("scored").inc()
            return
        self._slots.start()
        self._running.append(_Running(request, reading.writer))
        self._add(len(self._running) - 1, logits)
        self._metrics.first_token.observe(time.monotonic() - request.submitted)

    def _decode(self) -> None:
        """One token more for every running answer."""
        if not self._running:
            return
        self._metrics.batch.observe(len(self._running))
        tokens = [[running.token] for running in self._running]
        try:
            logits = self._decoder.forward(self._slots.cache, tokens, range(len(tokens)))
        except Exception as error:
            for place in reversed(range(len(tokens))):
                self._fail(self._running[place].request, error)
                self._leave(place)
            return
        for place in reversed(range(len(tokens))):
            self._add(place, logits[place])

    def _add(self, place: int, logits: Vector) -> None:
        running = self._running[place]
        try:
            segment = running.writer.add(logits)
        except Exception as error:
            self._fail(running.request, error)
            self._leave(place)
            return
        running.token = segment.id
        self._metrics.new_tokens.inc()
        if segment.finish_reason:
            self._metrics.answers.labels(segment.finish_reason).inc()
            if rate := segment.timings.tokens_per_second:
                self._metrics.rate.observe(rate)
            self._leave(place)
        running.request.emit(segment)

    def _leave(self, place: int) -> None:
        last = self._running.pop()
        if place < len(self._running):
            self._running[place] = last
        self._slots.leave(place)

    def _fail(self, request: Request, error: Exception) -> None:
        if not isinstance(error, UnavailableError):
            _LOG.error("A request failed: %s", type(error).__name__)
        self._metrics.answers.labels("failed").inc()
        request.emit(Failed(error))


class _Reading:
    """A prompt that is being read, and its scores where they are wanted."""

    def __init__(self, request: Request, writer: Writer, rest: list[int]) -> None:
        self.request, self.writer, self.rest = request, writer, rest
        self.scores = request.score is not None
        self.logprobs: list[Logprob | None] = [None] if self.scores else []

    def add(self, chunk: Sequence[int], logits: Logits) -> None:
        """Note that `chunk` was read, with the logits of its rows."""
        done = len(self.request.prompt) - len(self.rest) + len(chunk)
        self.rest = self.rest[len(chunk) :]
        if self.request.score is not None:
            following = self.request.prompt[done - len(chunk) + 1 : done + 1]
            for row, token in zip(logits, following, strict=False):
                self.logprobs.append(Logprob(*top_logprobs(row, token, self.request.score)))
        self.request.emit(Progress(done, len(self.request.prompt)))


class _Running:
    """An answer that is being written: its latest token is read next."""

    def __init__(self, request: Request, writer: Writer) -> None:
        self.request, self.writer = request, writer
        self.token = -1
