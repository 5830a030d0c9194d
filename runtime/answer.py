"""An answer: as a stream of segments, and whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Self

from issun.runtime.errors import ParameterError
from issun.runtime.generate import FinishReason, Logprob, Segment, Timings


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
    the answer up.
    """

    def __init__(
        self,
        segments: Iterator[Segment],
        *,
        ends: Collection[int],
        held_text: Callable[[], str],
        dropped_turns: int = 0,
        on_complete: Callable[[Completion], object] = lambda completion: None,
        on_abandon: Callable[[], object] = lambda: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._segments, self._held_text, self._on_end = segments, held_text, on_end
        self._ends, self._dropped_turns = ends, dropped_turns
        self._on_complete, self._on_abandon = on_complete, on_abandon
        self._pieces: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[Logprob] = []
        self._timings = Timings()
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
            segment = next(self._segments)
        except KeyboardInterrupt:
            raise  # still open: the caller chooses between cancel() and close()
        except BaseException:
            self.close()
            raise
        self._pieces.append(segment.text)
        self._timings = segment.timings
        if segment.id not in self._ends:
            self._ids.append(segment.id)
        if segment.logprob is not None:
            self._logprobs.append(segment.logprob)
        if segment.finish_reason is not None:
            self._end(segment.finish_reason)
        return segment

    def finish(self) -> Completion:
        """Read to the end and give the whole answer."""
        for _ in self:
            pass
        if self.completion is None:
            raise ParameterError("The stream was closed before its end.")
        return self.completion

    def cancel(self) -> Completion:
        """End the answer here and keep what has come; its finish reason is `cancelled`."""
        if self.open:
            self._pieces.append(self._held_text())
            self._end("cancelled")
        return self.finish()

    def close(self) -> None:
        """Give the answer up; nothing of it is kept."""
        if self.open:
            self._stop_segments()
            self._on_abandon()
            self._on_end()

    def __del__(self) -> None:
        """A forgotten stream is given up."""
        if getattr(self, "open", False):
            self.close()

    def _end(self, reason: FinishReason) -> None:
        self._stop_segments()
        self.completion = Completion(
            "".join(self._pieces),
            self._ids,
            reason,
            self._timings,
            self._dropped_turns,
            tuple(self._logprobs),
        )
        self._on_complete(self.completion)
        self._on_end()

    def _stop_segments(self) -> None:
        self.open = False
        if isinstance(self._segments, Generator):
            self._segments.close()
