"""The prefill of one request's prompt."""

from __future__ import annotations

from collections.abc import Sequence

from issun.runtime.decoding.decoder import Logits
from issun.runtime.decoding.generate import Logprob, RequestState
from issun.runtime.decoding.prefill import Prefill
from issun.runtime.decoding.sampling import top_logprobs
from issun.server.requests import Progress, Request


class RequestPrefill(Prefill):
    """Reports the progress, and computes the prompt's log-probabilities if requested."""

    def __init__(self, request: Request, state: RequestState, reusable: int) -> None:
        super().__init__(request.prompt, reusable, request.adapter)
        self.request, self.state = request, state
        self.scores = request.score is not None
        self.logprobs: list[Logprob | None] = [None] if self.scores else []

    def logit_rows(self, size: int) -> range:
        """The rows of the next `size` tokens whose logits are needed."""
        return range(size) if self.scores else super().logit_rows(size)

    def advance(self, chunk: Sequence[int], logits: Logits) -> None:
        """Note that `chunk` was read, with the logits of its rows."""
        super().advance(chunk, logits)
        done = len(self.prompt) - len(self.remaining)
        if self.request.score is not None:
            following = self.prompt[done - len(chunk) + 1 : done + 1]
            for row, token in zip(logits, following, strict=False):
                self.logprobs.append(Logprob(*top_logprobs(row, token, self.request.score)))
        self.request.emit(Progress(done, len(self.prompt)))
