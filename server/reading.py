"""A request's prompt on its way into the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from issun.runtime.decoder import Logits
from issun.runtime.generate import Logprob, Writer
from issun.runtime.reading import Reading
from issun.runtime.sampling import top_logprobs
from issun.server.requests import Progress, Request


class RequestReading(Reading):
    """Scores the prompt where that is wanted, and tells how far it is."""

    def __init__(self, request: Request, writer: Writer, known: int) -> None:
        super().__init__(request.prompt, known)
        self.request, self.writer = request, writer
        self.scores = request.score is not None
        self.logprobs: list[Logprob | None] = [None] if self.scores else []

    def rows(self, size: int) -> range:
        """Which rows of the next `size` tokens have logits of use."""
        return range(size) if self.scores else super().rows(size)

    def add(self, chunk: Sequence[int], logits: Logits) -> None:
        """Note that `chunk` was read, with the logits of its rows."""
        super().add(chunk, logits)
        done = len(self.prompt) - len(self.rest)
        if self.request.score is not None:
            following = self.prompt[done - len(chunk) + 1 : done + 1]
            for row, token in zip(logits, following, strict=False):
                self.logprobs.append(Logprob(*top_logprobs(row, token, self.request.score)))
        self.request.emit(Progress(done, len(self.prompt)))
