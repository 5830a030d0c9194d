"""The driver with simulated workers: nothing is lost or written twice, whatever they do."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.cluster import driver as module
from issun.cluster.driver import (
    IN_FLIGHT,
    Answered,
    Died,
    Driver,
    Event,
    Failed,
    Progress,
    Ready,
    rows_of_a_chunk,
)
from issun.cluster.errors import BatchError
from issun.cluster.journal import Answer, Journal
from issun.cluster.rows import Row
from issun.runtime import BundleError


def answer(row: Row) -> Answer:
    return Answer(row[0], 200, b'{"n":%d}' % row[0], 1)


class Simulated:
    """Workers that answer one chunk each time, unless `fate` of a worker and chunk says else."""

    def __init__(self, number: int, fate: Callable[[int, Sequence[Row]], str]) -> None:
        self.number, self.fate = number, fate
        self.events: list[Event] = []
        self.held: dict[int, dict[int, Sequence[Row]]] = {}
        self.started = 0
        self.tries: Counter[int] = Counter()

    def wait(self, seconds: float) -> list[Event]:
        while len(self.held) < self.number:
            self.held[self.started] = {}
            self.events.append(Ready(self.started, None))
            self.started += 1
        for worker, chunks in [*self.held.items()]:
            if not chunks:
                continue
            key, rows = next(iter(chunks.items()))
            self.tries.update(index for index, _ in rows)
            what = self.fate(worker, rows)
            if what == "die":
                del self.held[worker]
                self.events.append(Died(worker, "killed"))
            elif what == "answer":
                del chunks[key]
                self.events.append(Answered(worker, key, [answer(row) for row in rows]))
        events, self.events = self.events, []
        return events

    def give(self, worker: int, key: int, rows: Sequence[Row]) -> None:
        self.held[worker][key] = rows
        assert len(self.held[worker]) <= IN_FLIGHT

    def close(self) -> None:
        pass


def run(
    workers: Any, rows: int, chunk_rows: int = 4, **options: int
) -> tuple[list[bytes], Progress]:
    seen: list[Progress] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal", {}, rows) as journal,
    ):
        driver = Driver(
            enumerate([b"{}"] * rows),
            journal,
            workers,
            chunk_rows=chunk_rows,
            make_error=lambda row: Answer(row[0], 500, b'{"poison":%d}' % row[0]),
            check=lambda info: None,
            **options,
        )
        last = driver.run(seen.append)
        assert [p.done for p in seen] == sorted(p.done for p in seen)
        return list(journal.lines()), last


def test_all_rows_are_answered_in_order() -> None:
    workers = Simulated(3, lambda worker, rows: "answer")
    lines, last = run(workers, 50)
    assert lines == [b'{"n":%d}' % n for n in range(50)]
    assert last == Progress(50, 50, 0, 50, workers=3)
    assert set(workers.tries.values()) == {1}


def test_a_worker_can_be_given_one_chunk_after_another() -> None:
    held = []

    def fate(worker: int, rows: Sequence[Row]) -> str:
        held.append(len(workers.held[worker]))
        return "answer"

    workers = Simulated(2, fate)
    _, last = run(workers, 50, in_flight=1)
    assert last.done == 50
    assert set(held) == {1}


@pytest.mark.slow
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sets(st.integers(0, 60), max_size=9),
)
def test_workers_may_die_at_any_moment(
    number: int, rows: int, chunk_rows: int, deaths: set[int]
) -> None:
    asked = iter(range(10**9))
    spread = {3 * death for death in deaths}  # no chunk meets three of them

    def fate(worker: int, rows: Sequence[Row]) -> str:
        return "die" if next(asked) in spread else "answer"

    lines, last = run(Simulated(number, fate), rows, chunk_rows)
    poisoned = [line for line in lines if b"poison" in line]
    assert len(lines) == rows
    assert last.failed == len(poisoned) <= len(deaths) // 3
    assert [line for line in lines if b"poison" not in line] == [
        b'{"n":%d}' % n for n in range(rows) if b'{"poison":%d}' % n not in poisoned
    ]


@pytest.mark.parametrize("poison", [{5}, {0, 1}, {7, 30}, {39}])
def test_a_row_that_ends_every_worker_becomes_an_error(poison: set[int]) -> None:
    def fate(worker: int, rows: Sequence[Row]) -> str:
        return "die" if poison & {index for index, _ in rows} else "answer"

    workers = Simulated(2, fate)
    lines, last = run(workers, 40, 8)
    assert [n for n, line in enumerate(lines) if b"poison" in line] == sorted(poison)
    assert last.failed == len(poison)
    # Three deaths of the chunk, one of each half, and two more of the row alone.
    assert workers.started - workers.number <= 7 * len(poison)


def test_after_a_death_a_chunk_is_alone_with_its_worker() -> None:
    died: list[int] = []
    alone: list[bool] = []

    def fate(worker: int, rows: Sequence[Row]) -> str:
        if not died:
            died.extend(range(12))  # in flight with the first chunk
            return "die"
        if rows[0][0] in died:
            alone.append(len(workers.held[worker]) == 1)
        return "answer"

    workers = Simulated(1, fate)
    lines, _ = run(workers, 40)
    assert len(lines) == 40
    assert alone == [True] * 3


def test_an_idle_worker_repeats_what_a_silent_one_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REPEAT_SECONDS", -1.0)
    workers = Simulated(2, lambda worker, rows: "answer" if worker else "be silent")
    lines, last = run(workers, 20)
    assert lines == [b'{"n":%d}' % n for n in range(20)]
    assert last.tokens == 20


def test_a_late_answer_to_a_repeated_chunk_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REPEAT_SECONDS", -1.0)
    asked = iter(range(10**9))
    workers = Simulated(2, lambda w, rows: "answer" if w or next(asked) % 7 == 6 else "wait")
    lines, last = run(workers, 60)
    assert lines == [b'{"n":%d}' % n for n in range(60)]
    assert last == Progress(60, 60, 0, 60, workers=2)


class Broken:
    """Workers that cannot start."""

    def __init__(self, event: Event) -> None:
        self.event = event

    def wait(self, seconds: float) -> list[Event]:
        return [self.event]

    def give(self, worker: int, key: int, rows: Sequence[Row]) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


def test_workers_that_cannot_start() -> None:
    with pytest.raises(BatchError, match=r"ended 3 times .* \(exit code -9\)"):
        run(Broken(Died(0, "exit code -9")), 3)
    with pytest.raises(BundleError, match="no bundle"):
        run(Broken(Failed(0, BundleError("no bundle"))), 3)


class OneOfTwo(Simulated):
    """One worker answers, and the other one ends whenever it starts."""

    def wait(self, seconds: float) -> list[Event]:
        return [Died(-1, "killed"), *super().wait(seconds)]


def test_a_worker_that_cannot_start_beside_one_that_answers() -> None:
    lines, last = run(OneOfTwo(1, lambda worker, rows: "answer"), 40)
    assert lines == [b'{"n":%d}' % n for n in range(40)]
    assert last.failed == 0


def test_large_rows_make_small_chunks(tmp_path: Path) -> None:
    rows = [b"x" * 20_000] * 3 + [b"x"] * 3
    with Journal(tmp_path / "journal", {}, len(rows)) as journal:
        chunks = module._divide(enumerate(rows), journal, 4)
        assert [[index for index, _ in chunk.rows] for chunk in chunks] == [[0], [1], [2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("rows", "workers", "slots", "expected"),
    [(10_000, 2, 16, 16), (96, 2, 16, 16), (24, 2, 16, 4), (5, 2, 16, 1), (1, 1, 16, 1)],
)
def test_a_small_batch_is_divided_among_all_workers(
    rows: int, workers: int, slots: int, expected: int
) -> None:
    assert rows_of_a_chunk(rows, workers, slots) == expected
