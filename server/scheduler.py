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
from itertools import islice

from issun.runtime.constraint.matching import MASK_SECONDS
from issun.runtime.decoding.decoder import PREFILL_CHUNK, IssunDecoder
from issun.runtime.decoding.drafts import Drafts, draft_together
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.generate import RequestState, check_prompt
from issun.runtime.decoding.prefill import can_prefill_together, prefill_chunks, should_wait
from issun.runtime.decoding.slots import Slots
from issun.runtime.errors import SamplingError
from issun.runtime.model import Model
from issun.server.background import BackgroundThreads
from issun.server.errors import DeadlineError, QueueFullError, ServerError, UnavailableError
from issun.server.metrics import Metrics
from issun.server.prefill import RequestPrefill
from issun.server.requests import Failed, Request, Scored

_MASK_WAIT = 0.05  # seconds that other answers wait for a constraint
_CHUNK_WHILE_DECODING = 32  # prefill tokens per waiting prompt between two decoding steps
_DONE: Future[None] = Future()  # for answers without a constraint
_DONE.set_result(None)
_LOG = logging.getLogger("issun.server")


class Scheduler:
    """Answers many requests at the same time; `submit` and `cancel` are thread-safe."""

    def __init__(
        self,
        model: Model,
        metrics: Metrics,
        *,
        slots: int,
        max_queue: int,
        deadline: float,
        drafting: int,
        prefill_first: bool,
    ) -> None:
        if not isinstance(model.decoder, IssunDecoder):
            raise ServerError(
                "A bundle exported with Optimum cannot be served: export it with issun."
            )
        self._model, self._decoder, self._metrics = model, model.decoder, metrics
        self._slots = Slots(model.decoder.new_cache(slots))
        self._max_queue, self._deadline, self._drafting = max_queue, deadline, drafting
        self._prefill_first = prefill_first
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()  # guarded by _changed, as is _ends
        self._ends = math.inf  # deadline for running answers at shutdown
        self._reading: list[RequestPrefill] = []  # in the slots after the running ones
        self._running: list[_Running] = []  # the index is the slot
        self._background = BackgroundThreads()
        self._held = ExitStack()  # holds the model while the scheduler runs
        self._thread = threading.Thread(target=self._run, name="issun-scheduler", daemon=True)
        metrics.watch("issun_queue_length", "Waiting requests.", lambda: self.queued)
        metrics.watch("issun_running", "Requests in prefill or decoding.", lambda: self.running)

    @property
    def queued(self) -> int:
        """How many requests are waiting."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests are in prefill or decoding."""
        return len(self._running) + len(self._reading)

    def start(self) -> None:
        """Start the thread; raises BusyError while the model is in use elsewhere."""
        self._held.enter_context(self._model.busy())
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue all `requests`, or none of them.

        Raises QueueFullError, UnavailableError during shutdown, and what `check_prompt` raises.
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
                    "{waiting} requests are waiting already, at most {limit} may: try again in "
                    "{retry_after} s.",
                    waiting=len(self._waiting),
                    limit=self._max_queue,
                    retry_after=1 + len(self._waiting) // self._slots.count,
                )
            self._waiting.extend(requests)
            self._changed.notify()

    def resume(self, request: Request) -> None:
        """Queue the next job of an answer first, while its slot still holds the common prefix.

        Raises UnavailableError during shutdown, and what `check_prompt` raises.
        """
        check_prompt(self._decoder, request.prompt)
        with self._changed:
            if self._ends < math.inf:
                raise UnavailableError("The server is ending.")
            self._waiting.appendleft(request)
            self._changed.notify()

    def cancel(self, requests: Sequence[Request]) -> None:
        """Cancel those of `requests` that have not ended."""
        for request in requests:
            request.cancelled = True
        with self._changed:
            self._changed.notify()

    def stop(self, grace: float = 0.0) -> None:
        """Refuse new requests, end waiting ones now and running ones after `grace` seconds."""
        with self._changed:
            self._ends = min(self._ends, time.monotonic() + grace)
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread to end, after which the model is free again."""
        self._thread.join()

    def _run(self) -> None:
        with self._held:
            while self._wait():
                self._drop()
                if not (self._read() and self._prefill_first):
                    self._decode()
            self._background.close()
            self._slots.cache.close()

    def _wait(self) -> bool:
        """Wait for work; False at shutdown, when there is none left."""
        with self._changed:
            while not (self._waiting or self._reading or self._running):
                if self._ends < math.inf:
                    return False
                self._changed.wait()
            return True

    def _drop(self) -> None:
        """End requests that were cancelled, exceeded the deadline, or must end at shutdown."""
        now = time.monotonic()
        with self._changed:
            ending = self._ends < math.inf
            self._waiting = deque(r for r in self._waiting if not self._ended(r, now, ending))
        ending = now > self._ends
        if any(self._ended(reading.request, now, ending) for reading in self._reading):
            self._reading = []
            self._slots.drop_prefills()
        for index in reversed(range(len(self._running))):
            if self._ended(self._running[index].request, now, ending):
                self._leave(index)

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

    def _read(self) -> bool:
        """Prefill one chunk: as many whole prompts as fit into it, or a part of one.

        Returns whether there was one.
        """
        chunk = self._chunk_size()
        self._admit(chunk)
        if not self._reading:
            return False
        try:
            prefill_chunks(self._decoder, self._slots, self._reading, chunk)
        except Exception as error:
            self._slots.drop_prefills()
            for reading in self._reading:
                self._fail(reading.request, error)
            self._reading = []
            return True
        if not any(reading.remaining for reading in self._reading):
            self._begin()
        return True

    def _chunk_size(self) -> int:
        """The size of the next prefill chunk: the more prompts wait, the longer answers pause."""
        if not self._running or self._prefill_first:
            return PREFILL_CHUNK
        return min(PREFILL_CHUNK, _CHUNK_WHILE_DECODING * max(1, self.queued + len(self._reading)))

    def _admit(self, chunk: int) -> None:
        """Give slots to the requests that fit into one prefill chunk."""
        while not self._slots.full:
            with self._changed:
                request = self._waiting[0] if self._waiting else None
            if request is None or not self._fits(request, chunk):
                return
            with self._changed:
                self._waiting.popleft()
            known = self._known(request)
            try:
                state = self._model.request_state(
                    request.prompt, request.params, known, continued=request.continued
                )
                self._slots.join(
                    request.prompt,
                    request.texts,
                    adapter=request.adapter,
                    reuse=request.score is None,
                )
            except Exception as error:
                self._fail(request, error)
                continue
            self._reading.append(RequestPrefill(request, state, known))
            self._metrics.prompt_tokens.inc(len(request.prompt))
            self._metrics.reused_tokens.inc(known)

    def _fits(self, request: Request, chunk: int) -> bool:
        """Whether `request` fits into the same prefill chunk as the requests already in it."""
        known = self._known(request)
        if self._reading and request.answer != self._reading[0].request.answer:
            return False
        if request.score is None and should_wait(
            request.prompt, known, self._reading, request.adapter
        ):
            return False
        return can_prefill_together(request.prompt, known, self._reading, chunk)

    def _known(self, request: Request) -> int:
        """The length of the cached prefix; 0 for a scored prompt, which needs every row."""
        if request.score is not None:
            return 0
        return self._slots.reusable(request.prompt, request.adapter)

    def _begin(self) -> None:
        """Start decoding the prefilled requests."""
        read, self._reading = self._reading, []
        for reading in read:
            if (
                reading.scores or not reading.request.answer
            ):  # a request without an answer needs a last event
                reading.request.emit(Scored(reading.logprobs))
        if not read[0].request.answer:
            self._slots.drop_prefills()
            self._metrics.answers.labels("scored").inc(len(read))
            return
        self._slots.activate()
        for reading in read:
            request = reading.request
            drafts = (
                self._model.new_drafts(request.prompt, request.params) if self._drafting else None
            )
            running = _Running(request, reading.state, reading.logits, drafts)
            running.prepare(self._background)
            self._running.append(running)
        self._draw()

    def _decode(self) -> None:
        """Decode a token and a draft for each running answer, unless it waits for a constraint."""
        waiting = self._waiting_for_constraints()
        if waiting and len(waiting) == len(self._running):
            wait([running.prepared for running in waiting], _MASK_WAIT, FIRST_COMPLETED)
        self._draw()
        if len(self._waiting_for_constraints()) == len(self._running):
            return
        self._metrics.batch.observe(len(self._running))
        chunks = self._next_chunks()
        width = max(map(len, chunks))
        rows = [width * index + row for index, ids in enumerate(chunks) for row in range(len(ids))]
        try:
            logits = iter(self._decoder.forward(self._slots.cache, chunks, rows))
        except Exception as error:
            for index in reversed(range(len(chunks))):
                self._fail(self._running[index].request, error)
                self._leave(index)
            return
        for index, (running, chunk) in enumerate(zip(self._running, chunks, strict=True)):
            computed = list(islice(logits, len(chunk)))
            if running.rows:  # it waits: its latest token was only decoded again to fill its row
                self._forget(index, 1)
            else:
                running.rows.extend(computed)
        self._draw()

    def _next_chunks(self) -> list[list[int]]:
        """The latest token of each running answer and, if only a few run, a draft."""
        few = len(self._running) <= self._drafting
        drafts = draft_together(
            [running.drafts if few and not running.rows else None for running in self._running],
            [running.state.remaining_tokens - 1 for running in self._running],
        )
        return [
            [held[-1]] if running.rows else [running.token, *(guess.token for guess in draft)]
            for running, draft, held in zip(
                self._running, drafts, self._slots.cache.ids, strict=False
            )
        ]

    def _draw(self) -> None:
        """Sample the next tokens of the answers whose constraints are ready."""
        now = time.monotonic()
        late = (r for r in self._waiting_for_constraints() if not r.ready)  # rare
        fresh = [running for running in late if running.began + _MASK_WAIT > now]
        if fresh:
            latest = max(running.began for running in fresh)
            wait([running.prepared for running in fresh], latest + _MASK_WAIT - now)
        for index in reversed(range(len(self._running))):
            running = self._running[index]
            while running.ready:
                self._add(index)
                if running.rows:
                    wait([running.prepared], _MASK_WAIT)
            if running.rows and now > running.began + MASK_SECONDS:
                error = SamplingError(
                    "The constraint takes more than {limit:g} s for one token: simplify it.",
                    limit=MASK_SECONDS,
                )
                self._fail(running.request, error)
                self._leave(index)

    def _waiting_for_constraints(self) -> list[_Running]:
        return [running for running in self._running if running.rows]

    def _add(self, index: int) -> None:
        running = self._running[index]
        first = running.token < 0
        logits = running.rows.popleft()
        try:
            segment = running.state.add(logits)
        except Exception as error:
            self._fail(running.request, error)
            self._leave(index)
            return
        running.token = segment.id
        if not running.accept(logits) or segment.finish_reason:
            self._forget(index, len(running.rows))
            running.rows.clear()
        if first:
            self._metrics.first_token.observe(time.monotonic() - running.request.submitted)
        elif len(times := segment.timings.token_times) > 1:
            self._metrics.inter_token.observe(times[-1] - times[-2])
        self._metrics.new_tokens.inc()
        if segment.finish_reason:
            self._metrics.answers.labels(segment.finish_reason).inc()
            if segment.timings.new_tokens > 1:
                self._metrics.per_token.observe(segment.timings.time_per_output_token)
            self._leave(index)
        else:
            running.prepare(self._background)
        running.request.emit(segment)

    def _leave(self, index: int) -> None:
        self._running[index].rows.clear()
        last = self._running.pop()
        if index < len(self._running):
            self._running[index] = last
        self._slots.remove(index)

    def _forget(self, index: int, count: int) -> None:
        """Remove the last `count` tokens of a slot."""
        self._slots.cache.rewind(len(self._slots.cache.ids[index]) - count, index)

    def _fail(self, request: Request, error: Exception) -> None:
        if not isinstance(error, UnavailableError):
            _LOG.error("A request failed: %s", type(error).__name__)
        self._metrics.answers.labels("failed").inc()
        request.emit(Failed(error))


class _Running:
    """An answer in decoding; the next step reads its latest token and perhaps a draft.

    `rows` are the logits of the latest step that no token was sampled from yet. While there are
    any, it waits for its constraint.
    """

    def __init__(
        self, request: Request, state: RequestState, logits: Vector, drafts: Drafts | None
    ) -> None:
        self.request, self.state, self.drafts = request, state, drafts
        self.rows = deque([logits])
        self.token = -1
        self.prepared: Future[None] = _DONE
        self.began = 0.0

    @property
    def ready(self) -> bool:
        """Whether the next token can be sampled."""
        return bool(self.rows) and self.prepared.done()

    def accept(self, logits: Vector) -> bool:
        """Add the latest token, sampled from `logits`, to the drafts; True if it was guessed."""
        if not self.drafts:
            return False
        self.drafts.predict(int(logits.argmax()))
        return self.drafts.accept(self.token)

    def prepare(self, background: BackgroundThreads) -> None:
        """Start to compute the constraint's mask in the background."""
        if self.state.needs_prepare:
            self.began = time.monotonic()
            self.prepared = background.submit(self.state.prepare)
