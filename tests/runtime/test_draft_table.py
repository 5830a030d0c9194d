"""Tables of draft tokens: what they hold, and that a damaged one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.runtime.decoding import draft_table as module
from issun.runtime.decoding.draft_table import read_draft_table, write_draft_table
from issun.runtime.decoding.drafts import Drafts, Guess, Predictions, Source
from issun.runtime.errors import BundleError


def test_the_most_frequent_prediction_is_kept(tmp_path: Path) -> None:
    texts = [([1, 2, 3], [5, 6]), ([1, 2, 4], [5, 6]), ([9, 2], [8]), ([9, 2], [8]), ([7, 2], [8])]
    path = tmp_path / "draft.bin"
    assert write_draft_table(path, texts) == 8  # pairs 1 2, 2 3, 2 4, 9 2, 7 2; tokens 2, 3, 4
    table = read_draft_table(path, 10)
    assert len(table) == 8
    assert [table.after_pair(*pair) for pair in ((1, 2), (2, 3), (9, 2), (2, 9))] == [5, 6, 8, None]
    assert [table.after_token(token) for token in (2, 3, 4, 1, 9)] == [8, 6, 6, None, None]
    assert path.stat().st_size == 8 * 12


def test_only_the_most_frequent_pairs_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 30)
    path = tmp_path / "draft.bin"
    assert write_draft_table(path, [([3, 4], [1]), ([1, 2], [5]), ([1, 2], [5])]) == 2
    table = read_draft_table(path, 10)
    assert (table.after_pair(1, 2), table.after_token(2)) == (5, 5)
    assert (table.after_pair(3, 4), table.after_token(4)) == (None, None)


def test_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "draft.bin"
    assert write_draft_table(path, []) == 0
    assert read_draft_table(path, 10).after_token(1) is None


@pytest.mark.parametrize("damage", ["cut", "id", "order", "size"])
def test_a_damaged_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = tmp_path / "draft.bin"
    write_draft_table(path, [([1, 2, 3], [5, 6])])
    raw = path.read_bytes()
    if damage == "cut":
        path.write_bytes(raw[:-1])
    elif damage == "order":
        path.write_bytes(raw[12:24] + raw[:12] + raw[24:])
    elif damage == "size":
        monkeypatch.setattr(module, "MAX_BYTES", 12)
    with pytest.raises(BundleError, match="is damaged: export the bundle again"):
        read_draft_table(path, 6 if damage == "id" else 7)


def test_a_conversation_starts_from_the_table_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "draft.bin"
    write_draft_table(path, [([1, 2], [5])])
    table = read_draft_table(path, 10)
    predictions = Predictions(table)
    assert predictions.guess(1, 2) == Guess(5, Source.AFTER_TWO)
    assert predictions.guess(3, 2) == Guess(5, Source.AFTER_ONE)
    assert predictions.guess(1, 3) is None
    predictions.add(1, 2, 6)
    assert predictions.guess(1, 2) == Guess(6, Source.AFTER_TWO)
    assert predictions.guess(3, 2) == Guess(6, Source.AFTER_ONE)
    assert Predictions(table).guess(1, 2) == Guess(5, Source.AFTER_TWO)
    assert Drafts([1, 2], 0.01, Predictions(table)).draft(1) == [Guess(5, Source.AFTER_TWO)]
