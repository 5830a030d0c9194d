"""The greedy decoding loop shared by engines that expose a forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from issun.benchmarks.engines.base import Engine


class GreedyEngine(Engine):
    """An engine that runs its forward pass in our decoding loop.

    `tokens` are those of the last `generate`, for tests.
    """

    tokens: list[int]

    @abstractmethod
    def reset(self) -> None:
        """Empty the cache."""

    @abstractmethod
    def next_token(self, ids: Sequence[int]) -> int:
        """Append `ids` to the cache and return the token with the largest last logit."""

    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        """Prefill, then decode one token at a time."""
        self.reset()
        self.tokens = []
        for _ in range(count):
            token = self.next_token(ids)
            self.tokens.append(token)
            yield
            ids = [token]
