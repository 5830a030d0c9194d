"""An answer: as a stream of segments, and whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Literal, Self

from issun.runtime.busy import Work
from issun.runtime.errors import ParameterError
from issun.runtime.generate import FinishReason, Logprob, Segment, Stop, Timings


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    `text` is without the stop string, control tokens and the final newline; `ids` are the tokens
    drawn, without the end token; `dropped_turns` counts the oldest turns of a conversation that
    were left out of the prompt; `logprobs` has one entry a drawn token where they were asked for.
    """

    text: str
    ids: list[int]
    finish_reason: FinishReason
    timings: Timings
    dropped_turns: int = 0
    logprobs: tuple[Logprob, ...] = ()

    def __str__(self) -> str:
        """The text."""
        return self.text


class Stream:
    """Segments of an answer as they come; `completion` is there when they have ended.

    `cancel()` ends the answer and keeps what has come; `close()`, or forgetting the stream, gives
    the answer up. Both may be called from any thread and from a signal handler: while a step runs
    they only ask for it and return, and the thread that iterates ends the stream when the step is
    done, before the next token or the next chunk of the prompt.
    """

    def __init__(
        self,
        segments: Callable[[Stop], Iterator[Segment]],
        work: Work | None,
        *,
        ends: Collection[int],
        held_text: Callable[[], str],
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], object] = lambda completion: None,
        on_abandon: Callable[[], object] = lambda: None,
    ) -> None:
        """Take over `work`, a use of the model that has begun and ends with the stream.

        None where the segments come from streams of their own. `segments` gets what says whether
        the stream was asked to end, and begins them.
        """
        self._work = work
        self._held_text, self._dropped_turns = held_text, dropped_turns
        self._on_complete, self._on_abandon = on_complete, on_abandon
        self._record = _Record(ends)
        self._steps = self._record.follow(segments(self._record.is_asked))
        self._ending = threading.RLock()  # reentrant: a signal handler may interrupt its holder
        self.completion: Completion | None = None
        self.open = True

    @property
    def dropped_turns(self) -> int:
        """How many of the oldest turns were left out of the prompt."""
        return self._dropped_turns

    def __iter__(self) -> Self:
        """The stream is its own iterator."""
        return self

    def __next__(self) -> Segment:
        """The next segment; the last one has the finish reason."""
        if not self.open:
            raise StopIteration
        try:
            segment = next(self._steps)
        except KeyboardInterrupt:
            raise  # still open: the caller chooses between cancel() and close()
        except StopIteration:  # before a chunk of the prompt
            self._end_as_asked()
            raise
        except BaseException:
            self._end("close")
            raise
        if segment.finish_reason is not None:
            self._end(segment.finish_reason)
        elif self._record.asked:  # while the step ran
            self._end_as_asked()
        return segment

    def finish(self) -> Completion:
        """Read to the end and give the whole answer."""
        for _ in self:
            pass
        if self.completion is None:
            raise ParameterError("The stream was closed before its end.")
        return self.completion

    def cancel(self) -> Completion | None:
        """End the answer here and keep what has come; its finish reason is `cancelled`.

        Gives the completion, or None while a step runs: it is there when the iteration ends.
        Raises ParameterError when the stream was closed.
        """
        self._record.asked = self._record.asked or "cancel"
        self._end_as_asked()
        if not self.open and self.completion is None:
            raise ParameterError("The stream was closed before its end.")
        return self.completion

    def close(self) -> None:
        """Give the answer up; nothing of it is kept."""
        self._record.asked = "close"
        self._end_as_asked()

    def __del__(self) -> None:
        """A forgotten stream is given up."""
        if getattr(self, "open", False):
            self.close()

    def _end_as_asked(self) -> None:
        """End the stream, unless a step runs: `__next__` asks again behind it."""
        try:
            self._steps.close()
        except ValueError:  # Python's word for a generator that is running
            return
        self._end("cancelled" if self._record.asked == "cancel" else "close")

    def _end(self, reason: FinishReason | Literal["close"]) -> None:
        """End the stream once; whatever happens, the model is free afterwards."""
        with self._ending:
            try:
                if not self.open:
                    return
                self.open = False
                self._steps.close()
                if reason == "close":
                    self._on_abandon()
                else:
                    self._complete(reason)
            finally:
                if self._work:
                    self._work.__exit__()

    def _complete(self, reason: FinishReason) -> None:
        if reason == "cancelled":
            self._record.pieces.append(self._held_text())
        self.completion = self._record.completion(reason, self._dropped_turns)
        self._on_complete(self.completion)


class _Record:
    """What has come of an answer; it does not know its stream, which can so be forgotten."""

    def __init__(self, ends: Collection[int]) -> None:
        self.pieces: list[str] = []
        self.asked: Literal["cancel", "close"] | None = None  # how the stream is to end
        self._ends = ends
        self._ids: list[int] = []
        self._logprobs: list[Logprob] = []
        self._timings = Timings()

    def is_asked(self) -> bool:
        """Whether the stream was asked to end."""
        return self.asked is not None

    def follow(self, segments: Iterator[Segment]) -> Generator[Segment, None, None]:
        """Note each segment within its step, so that nobody ends the stream between the two."""
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
        """The answer as far as it has come."""
        return Completion(
            "".join(self.pieces),
            self._ids,
            reason,
            self._timings,
            dropped_turns,
            tuple(self._logprobs),
        )
