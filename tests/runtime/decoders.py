"""A decoder that generates given tokens, with the real checks and the real cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from issun.runtime.decoding.decoder import Decoder, Logits
from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.errors import ParameterError

Script = Callable[[list[int]], int]


class ScriptedCache(Cache):
    def rewind(self, length: int, slot: int = 0) -> None:
        if not 0 <= length <= len(self.ids[slot]):
            raise ParameterError("Cannot rewind to {length}.", length=length)
        del self.ids[slot][length:]


class ScriptedDecoder(Decoder):
    """`script` gets all ids so far and gives the id that is to be the likeliest next.

    `calls` holds the chunks that were read. A script may raise, as an interrupt does.
    """

    def __init__(self, script: Script, *, n_positions: int = 64, vocab_size: int = 10) -> None:
        architecture: Any = SimpleNamespace(n_positions=n_positions, vocab_size=vocab_size)
        super().__init__(None, architecture)  # type: ignore[arg-type]
        self.script = script
        self.calls: list[list[int]] = []

    def new_cache(self, slots: int = 1) -> ScriptedCache:
        return ScriptedCache(slots)

    def forward(self, cache: Cache, chunks: Sequence[Sequence[int]], rows: Sequence[int]) -> Logits:
        self._check(cache, chunks, rows)
        (chunk,) = chunks
        self.calls.append(list(chunk))
        read = [*cache.ids[0], *chunk]
        held = len(cache.ids[0])
        tokens = [self.script(read[: held + row + 1]) for row in rows or [len(chunk) - 1]]
        cache.ids[0].extend(chunk)
        logits = np.zeros((len(rows), self.vocab_size), np.float32)
        for row, token in zip(logits, tokens, strict=False):
            row[token] = 10
        return logits


def saying(*tokens: int, after: int) -> Script:
    """Return a script that generates `tokens` after `after` ids, then repeats the last one."""

    def script(ids: list[int]) -> int:
        return tokens[min(len(ids) - after, len(tokens) - 1)]

    return script


class Ticks:
    """A clock that advances by one second at each call."""

    def __init__(self) -> None:
        self.now = -1.0

    def __call__(self) -> float:
        self.now += 1
        return self.now
