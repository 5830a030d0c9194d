"""A prompt on its way into the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from issun.runtime.decoder import Logits
from issun.runtime.generate import Logprob, Writer
from issun.runtime.sampling import Vector, top_logprobs
from issun.server.requests import Progress, Request


class Reading:
    """A prompt that is being read: its last logits, and its scores where they are wanted."""

    logits: Vector  # behind the whole prompt

    def __init__(self, request: Request, writer: Writer, rest: list[int]) -> None:
        self.request, self.writer, self.rest = request, writer, rest
        self.scores = request.score is not None
        self.logprobs: list[Logprob | None] = [None] if self.scores else []

    def rows(self, size: int) -> range:
        """Which rows of the next `size` tokens have logits of use."""
        if self.scores:
            return range(size)
        return range(size - (size == len(self.rest)), size)

    def add(self, chunk: Sequence[int], logits: Logits) -> None:
        """Note that `chunk` was read, with the logits of its rows."""
        done = len(self.request.prompt) - len(self.rest) + len(chunk)
        self.rest = self.rest[len(chunk) :]
        if self.request.score is not None:
            following = self.request.prompt[done - len(chunk) + 1 : done + 1]
            for row, token in zip(logits, following, strict=False):
                self.logprobs.append(Logprob(*top_logprobs(row, token, self.request.score)))
        if not self.rest:
            self.logits = logits[-1]
        self.request.emit(Progress(done, len(self.request.prompt)))
