"""An answer, either as a stream of segments or as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Literal, Self

from issun.runtime.decoding.busy import ExclusiveUse
from issun.runtime.decoding.generate import FinishReason, Logprob, Segment, Stop, Timings
from issun.runtime.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    `text` excludes the stop string, control tokens and the final newline. `ids` are the generated
    tokens without the end token. `dropped_turns` counts the oldest turns of a conversation that
    did not fit into the prompt. `logprobs` has one entry per generated token if they were
    requested. `score` is what `Model.beam_search` and `Model.sample_n` rank answers by.
    """

    text: str
    ids: list[int]
    finish_reason: FinishReason
    timings: Timings
    dropped_turns: int = 0
    logprobs: tuple[Logprob, ...] = ()
    score: float | None = None

    def __str__(self) -> str:
        """The text."""
        return self.text


class Stream:
    """Iterates over the segments of an answer; `completion` is set once it has ended.

    `cancel()` ends the answer and keeps the text so far. `close()`, or dropping the last
    reference, discards it. Both may be called from any thread and from a signal handler: if a step
    is running, they set a flag and return, and the iterating thread ends the stream after that
    step, before the next token or the next chunk of the prompt.
    """

    def __init__(
        self,
        segments: Callable[[Stop], Iterator[Segment]],
        use: ExclusiveUse | None,
        *,
        ends: Collection[int],
        pending_text: Callable[[], str],
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], object] = lambda completion: None,
        on_abandon: Callable[[], object] = lambda: None,
    ) -> None:
        """Take over `use`, an active use of the model that ends with the stream.

        `use` is None if the segments come from other streams. `segments` is called with a function
        that returns whether the stream has been asked to end, and returns the iterator.
        """
        self._use = use
        self._pending_text, self._dropped_turns = pending_text, dropped_turns
        self._on_complete, self._on_abandon = on_complete, on_abandon
        self._record = _Record(ends)
        self._steps = self._record.follow(segments(self._record.end_requested))
        self._ending = threading.RLock()  # reentrant: a signal handler may interrupt its holder
        self.completion: Completion | None = None
        self.open = True
        self._discarded = False

    @property
    def dropped_turns(self) -> int:
        """How many of the oldest turns did not fit into the prompt."""
        return self._dropped_turns

    def __iter__(self) -> Self:
        """Return the stream, which is its own iterator."""
        return self

    def __next__(self) -> Segment:
        """Return the next segment; the last one has a finish reason."""
        if not self.open:
            raise StopIteration
        try:
            segment = next(self._steps)
        except KeyboardInterrupt:
            raise  # the stream stays open: the caller chooses between cancel() and close()
        except StopIteration:  # ended before a chunk of the prompt
            self._end_if_requested()
            raise
        except BaseException:
            self._end("close")
            raise
        if segment.finish_reason is not None:
            self._end(segment.finish_reason)
        elif self._record.end_request:  # during the step
            self._end_if_requested()
        return segment

    def finish(self) -> Completion:
        """Read to the end and return the whole answer."""
        for _ in self:
            pass
        if self.completion is None:
            raise ParameterError("The stream was closed before its end.")
        return self.completion

    def cancel(self) -> Completion | None:
        """End the answer here and keep the text so far; the finish reason is `cancelled`.

        Returns the completion, or None if a step is running or the stream is just ending; it is
        then set when iteration ends. Raises ParameterError if the stream was closed.
        """
        self._record.end_request = self._record.end_request or "cancel"
        self._end_if_requested()
        if self._discarded:
            raise ParameterError("The stream was closed before its end.")
        return self.completion

    def close(self) -> None:
        """End the stream and discard the answer."""
        self._record.end_request = "close"
        self._end_if_requested()

    def __del__(self) -> None:
        """Close a stream that nobody references any more."""
        if getattr(self, "open", False):
            self.close()

    def _end_if_requested(self) -> None:
        """End the stream, unless a step is running: `__next__` then ends it after that step."""
        try:
            self._steps.close()
        except ValueError:  # raised by a generator that is executing
            return
        self._end("cancelled" if self._record.end_request == "cancel" else "close")

    def _end(self, reason: FinishReason | Literal["close"]) -> None:
        """End the stream once, and release the model whatever happens."""
        with self._ending:
            try:
                if not self.open:
                    return
                self.open = False
                self._steps.close()
                if reason == "close":
                    self._discarded = True
                    self._on_abandon()
                else:
                    self._complete(reason)
            except BaseException:
                self._discarded = self.completion is None
                raise
            finally:
                if self._use:
                    self._use.__exit__()

    def _complete(self, reason: FinishReason) -> None:
        if reason == "cancelled":
            self._record.pieces.append(self._pending_text())
        self.completion = self._record.completion(reason, self._dropped_turns)
        self._on_complete(self.completion)


class _Record:
    """What has been generated so far; has no reference to the stream, so that can be collected."""

    def __init__(self, ends: Collection[int]) -> None:
        self.pieces: list[str] = []
        # How the stream was asked to end.
        self.end_request: Literal["cancel", "close"] | None = None
        self._ends = ends
        self._ids: list[int] = []
        self._logprobs: list[Logprob] = []
        self._timings = Timings()

    def end_requested(self) -> bool:
        """Return whether the stream was asked to end."""
        return self.end_request is not None

    def follow(self, segments: Iterator[Segment]) -> Generator[Segment, None, None]:
        """Record each segment within its step, so that nothing can end the stream in between."""
        try:
            for segment in segments:
                self.pieces.append(segment.text)
                self._timings = segment.timings
                if segment.id not in self._ends:
                    self._ids.append(segment.id)
                if segment.logprob is not None:
                    self._logprobs.append(segment.logprob)
                yield segment
        finally:
            if isinstance(segments, Generator):
                segments.close()

    def completion(self, reason: FinishReason, dropped_turns: int) -> Completion:
        """Return the answer so far."""
        return Completion(
            "".join(self.pieces),
            self._ids,
            reason,
            self._timings,
            dropped_turns,
            tuple(self._logprobs),
        )
