"""Continuous batching: requests join and leave at every step, in one thread that owns the model."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack

from issun.runtime.constraint.matching import MASK_SECONDS
from issun.runtime.decoder import PREFILL_CHUNK, IssunDecoder
from issun.runtime.errors import SamplingError
from issun.runtime.filters import Vector
from issun.runtime.generate import RequestState, check_prompt
from issun.runtime.model import Model
from issun.runtime.prefill import can_prefill_together, prefill_chunks, should_wait
from issun.runtime.slots import Slots
from issun.server.beside import Beside
from issun.server.errors import DeadlineError, QueueFullError, ServerError, UnavailableError
from issun.server.metrics import Metrics
from issun.server.prefill import RequestPrefill
from issun.server.requests import Failed, Request, Scored

_MASK_WAIT = 0.05  # seconds that other answers wait for it
_CHUNK_BESIDE = 32  # tokens that are read between two steps for each prompt that waits
_DONE: Future[None] = Future()  # of an answer without a constraint
_DONE.set_result(None)
_LOG = logging.getLogger("issun.server")


class Scheduler:
    """Answers many requests at a time; `submit` and `cancel` may be called from any thread."""

    def __init__(
        self, model: Model, metrics: Metrics, *, slots: int, max_queue: int, deadline: float
    ) -> None:
        if not isinstance(model.decoder, IssunDecoder):
            raise ServerError(
                "A bundle exported with Optimum cannot be served: export it with issun."
            )
        self._model, self._decoder, self._metrics = model, model.decoder, metrics
        self._slots = Slots(model.decoder.new_cache(slots))
        self._max_queue, self._deadline = max_queue, deadline
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()  # guarded by _changed, as is _ends
        self._ends = math.inf  # when running answers must have ended
        self._reading: list[RequestPrefill] = []  # behind the running; between steps one or none
        self._running: list[_Running] = []  # each in the slot of its place
        self._beside = Beside()
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
        return len(self._running) + len(self._reading)

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

    def resume(self, request: Request) -> None:
        """Put what goes on with an answer before all that wait: its slot still holds the prompt.

        Raises UnavailableError when the server is ending, and what `check_prompt` raises.
        """
        check_prompt(self._decoder, request.prompt)
        with self._changed:
            if self._ends < math.inf:
                raise UnavailableError("The server is ending.")
            self._waiting.appendleft(request)
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
                self._read()
                self._decode()
            self._beside.close()
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
        if any(self._ended(reading.request, now, ending) for reading in self._reading):
            self._reading = []
            self._slots.drop_prefills()
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

    def _read(self) -> None:
        """Read a piece: as many whole prompts as fit into it, or a part of one."""
        most = self._piece()
        self._admit(most)
        if not self._reading:
            return
        try:
            prefill_chunks(self._decoder, self._slots, self._reading, most)
        except Exception as error:
            self._slots.drop_prefills()
            for reading in self._reading:
                self._fail(reading.request, error)
            self._reading = []
            return
        if not any(reading.remaining for reading in self._reading):
            self._begin()

    def _piece(self) -> int:
        """How many tokens to read at once; answers wait the longer the more are to begin."""
        if not self._running:
            return PREFILL_CHUNK
        return min(PREFILL_CHUNK, _CHUNK_BESIDE * max(1, self.queued + len(self._reading)))

    def _admit(self, most: int) -> None:
        """Give slots to the requests that can be read in one piece of `most` tokens."""
        while not self._slots.full:
            with self._changed:
                request = self._waiting[0] if self._waiting else None
            if request is None or not self._fits(request, most):
                return
            with self._changed:
                self._waiting.popleft()
            known = self._known(request)
            try:
                state = self._model.request_state(
                    request.prompt, request.params, known, continued=request.continued
                )
                self._slots.join(request.prompt, reuse=request.score is None)
            except Exception as error:
                self._fail(request, error)
                continue
            self._reading.append(RequestPrefill(request, state, known))
            self._metrics.prompt_tokens.inc(len(request.prompt))
            self._metrics.reused_tokens.inc(known)

    def _fits(self, request: Request, most: int) -> bool:
        """Whether `request` can be read together with what is read now, each of them whole."""
        known = self._known(request)
        if self._reading and request.answer != self._reading[0].request.answer:
            return False
        if request.score is None and should_wait(request.prompt, known, self._reading):
            return False
        return can_prefill_together(request.prompt, known, self._reading, most)

    def _known(self, request: Request) -> int:
        """How much of a prompt need not be read; of one that is scored every row is needed."""
        return self._slots.reusable(request.prompt) if request.score is None else 0

    def _begin(self) -> None:
        """Let what was read begin its answers."""
        read, self._reading = self._reading, []
        for reading in read:
            if reading.scores or not reading.request.answer:  # what ends here must be told its end
                reading.request.emit(Scored(reading.logprobs))
        if not read[0].request.answer:
            self._slots.drop_prefills()
            self._metrics.answers.labels("scored").inc(len(read))
            return
        self._slots.activate()
        for reading in read:
            running = _Running(reading.request, reading.state, reading.logits)
            running.prepare(self._beside)
            self._running.append(running)
        self._draw()

    def _decode(self) -> None:
        """One token more for every running answer but those whose constraint takes long."""
        waiting = self._waiting_for_constraints()
        if waiting and len(waiting) == len(self._running):
            wait([running.prepared for running in waiting], _MASK_WAIT, FIRST_COMPLETED)
        self._draw()
        if len(self._waiting_for_constraints()) == len(self._running):
            return
        self._metrics.batch.observe(len(self._running))
        held = self._slots.cache.ids
        tokens = [
            [held[place][-1] if running.logits is not None else running.token]
            for place, running in enumerate(self._running)
        ]
        try:
            logits = self._decoder.forward(self._slots.cache, tokens, range(len(tokens)))
        except Exception as error:
            for place in reversed(range(len(tokens))):
                self._fail(self._running[place].request, error)
                self._leave(place)
            return
        for place, running in enumerate(self._running):
            if running.logits is None:
                running.logits = logits[place]
            else:  # it waits, and its latest token was read once more to fill its row
                self._slots.cache.rewind(len(held[place]) - 1, place)
        self._draw()

    def _draw(self) -> None:
        """Let the answers whose constraints are ready get their next tokens."""
        now = time.monotonic()
        late = (r for r in self._waiting_for_constraints() if not r.ready)  # seldom any
        fresh = [running for running in late if running.began + _MASK_WAIT > now]
        if fresh:
            latest = max(running.began for running in fresh)
            wait([running.prepared for running in fresh], latest + _MASK_WAIT - now)
        for place in reversed(range(len(self._running))):
            running = self._running[place]
            if running.ready:
                self._add(place)
            elif running.logits is not None and now > running.began + MASK_SECONDS:
                error = SamplingError(
                    "The constraint takes more than {limit:g} s for one token: simplify it.",
                    limit=MASK_SECONDS,
                )
                self._fail(running.request, error)
                self._leave(place)

    def _waiting_for_constraints(self) -> list[_Running]:
        return [running for running in self._running if running.logits is not None]

    def _add(self, place: int) -> None:
        running = self._running[place]
        first = running.token < 0
        logits, running.logits = running.logits, None
        if logits is None:
            return
        try:
            segment = running.state.add(logits)
        except Exception as error:
            self._fail(running.request, error)
            self._leave(place)
            return
        running.token = segment.id
        if first:
            self._metrics.first_token.observe(time.monotonic() - running.request.submitted)
        self._metrics.new_tokens.inc()
        if segment.finish_reason:
            self._metrics.answers.labels(segment.finish_reason).inc()
            if rate := segment.timings.tokens_per_second:
                self._metrics.rate.observe(rate)
            self._leave(place)
        else:
            running.prepare(self._beside)
        running.request.emit(segment)

    def _leave(self, place: int) -> None:
        last = self._running.pop()
        if place < len(self._running):
            self._running[place] = last
        self._slots.remove(place)

    def _fail(self, request: Request, error: Exception) -> None:
        if not isinstance(error, UnavailableError):
            _LOG.error("A request failed: %s", type(error).__name__)
        self._metrics.answers.labels("failed").inc()
        request.emit(Failed(error))


class _Running:
    """An answer that is being written: its latest token is read next.

    With `logits` it waits for what its constraint allows, before its next token is drawn.
    """

    def __init__(self, request: Request, state: RequestState, logits: Vector) -> None:
        self.request, self.state = request, state
        self.logits: Vector | None = logits
        self.token = -1
        self.prepared: Future[None] = _DONE
        self.began = 0.0

    @property
    def ready(self) -> bool:
        """Whether the next token can be drawn."""
        return self.logits is not None and self.prepared.done()

    def prepare(self, beside: Beside) -> None:
        """Begin to work out what may come next, while the model works."""
        if self.state.needs_prepare:
            self.began = time.monotonic()
            self.prepared = beside.submit(self.state.prepare)
