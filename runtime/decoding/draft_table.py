"""A bundle's table of likely tokens, from which the drafts of a conversation start.

`issun export --draft` makes it of text that the model writes itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.runtime.errors import BundleError
from issun.runtime.manifest import DRAFT_NAME, Manifest

MAX_BYTES = 2_000_000
# The likeliest token after a pair of tokens, or after the second one if the first is _ANY.
_ENTRY = np.dtype([("previous", "<u4"), ("token", "<u4"), ("likeliest", "<u4")])
_ANY = 0xFFFFFFFF


class DraftTable:
    """What a model usually finds most probable after two tokens, and after one; read-only."""

    def __init__(self, entries: NDArray[np.void]) -> None:
        """`entries` are in ascending order of their pairs."""
        # As Python's own integers, a search takes 1 microsecond instead of 5.
        self._pairs = memoryview(_keys(entries).tobytes()).cast("Q")
        self._likeliest = memoryview(entries["likeliest"].tobytes()).cast("I")

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._pairs)

    def after_pair(self, previous: int, token: int) -> int | None:
        """Return the token that is usually the likeliest after both tokens, if known."""
        key = previous << 32 | token
        index = bisect_left(self._pairs, key)
        found = index < len(self._pairs) and self._pairs[index] == key
        return self._likeliest[index] if found else None

    def after_token(self, token: int) -> int | None:
        """Return the token that is usually the likeliest after `token`, if known."""
        return self.after_pair(_ANY, token)


def _keys(entries: NDArray[np.void]) -> NDArray[np.uint64]:
    previous: NDArray[np.uint32] = entries["previous"]
    token: NDArray[np.uint32] = entries["token"]
    return (previous.astype(np.uint64) << np.uint64(32)) | token


def bundle_draft_table(folder: Path, manifest: Manifest) -> DraftTable | None:
    """Read the table of the bundle in `folder`, None if it has none; raises BundleError."""
    if DRAFT_NAME not in manifest.files:
        return None
    return read_draft_table(folder / DRAFT_NAME, manifest.architecture.vocab_size)


def read_draft_table(path: Path, vocab_size: int) -> DraftTable:
    """Read the table at `path`; raises BundleError if it is not one for so many ids."""
    with path.open("rb") as file:
        entries = np.frombuffer(file.read(MAX_BYTES + 1), np.uint8)
    if entries.nbytes <= MAX_BYTES and entries.nbytes % _ENTRY.itemsize == 0:
        table = entries.view(_ENTRY)
        ids = np.concatenate([table["likeliest"], table["token"]])
        keys = _keys(table)
        if (ids < vocab_size).all() and (keys[1:] > keys[:-1]).all():
            return DraftTable(table)
    raise BundleError("{path} is damaged: export the bundle again.", path=path)


def write_draft_table(path: Path, texts: Iterable[tuple[Sequence[int], Sequence[int]]]) -> int:
    """Write a table of `texts` to `path`, and return the number of its entries.

    A text is its ids, and the likeliest token after each but the first. If there are too many
    pairs, the most frequent ones are kept.
    """
    found: dict[tuple[int, int], Counter[int]] = {}
    for ids, likeliest in texts:
        for previous, token, best in zip(ids, ids[1:], likeliest, strict=False):
            for pair in ((previous, token), (_ANY, token)):
                found.setdefault(pair, Counter())[best] += 1
    kept = sorted(found, key=lambda pair: -found[pair].total())[: MAX_BYTES // _ENTRY.itemsize]
    rows = [(*pair, found[pair].most_common(1)[0][0]) for pair in sorted(kept)]
    np.array(rows, _ENTRY).tofile(path)
    return len(rows)
