"""What the peers share: an engine that is fed ids and says which token comes next."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from issun.benchmarks.engines.base import Engine


class Greedy(Engine):
    """An engine with a loop of ours around its forward pass.

    `tokens` are those of the last `generate`, for tests to compare.
    """

    tokens: list[int]

    @abstractmethod
    def reset(self) -> None:
        """Empty the cache."""

    @abstractmethod
    def next_token(self, ids: Sequence[int]) -> int:
        """Read `ids` behind what the cache holds; the token with the greatest last logit."""

    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        """Prefill, then single steps."""
        self.reset()
        self.tokens = []
        for _ in range(count):
            token = self.next_token(ids)
            self.tokens.append(token)
            yield
            ids = [token]
