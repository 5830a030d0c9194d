"""The journal: whole lines alone count, and it belongs to one batch."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.cluster.errors import BatchError
from issun.cluster.journal import Answer, Journal
from tests.needs import posix

HEADER = {"input": "abc", "seed": 1}


def line(index: int) -> bytes:
    return b'{"row":%d,"text":"\xe5\xb1\xb1 \\n"}' % index


def answers(*indices: int) -> list[Answer]:
    return [Answer(index, 200 if index % 2 else 400, line(index)) for index in indices]


def test_answers_come_back_in_the_order_of_the_input(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, HEADER, 4) as journal:
        journal.add(answers(3, 0))
        assert (journal.done, journal.failed, journal.complete) == (2, 1, False)
        assert 3 in journal
        assert 1 not in journal
    with Journal(path, HEADER, 4) as journal:
        assert (journal.done, journal.failed) == (2, 1)
        journal.add(answers(2, 1))
        assert journal.complete
        assert list(journal.lines()) == [line(index) for index in range(4)]


def test_a_second_answer_is_dropped(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", HEADER, 1) as journal:
        journal.add([*answers(0), Answer(0, 200, b'{"other":1}')])
        journal.add([Answer(0, 200, b'{"other":1}')])
        assert list(journal.lines()) == [line(0)]
        assert (journal.done, journal.failed) == (1, 1)


@pytest.mark.slow
@given(st.integers(min_value=0), st.binary(max_size=40))
def test_a_crash_at_any_byte_loses_unfinished_lines_alone(cut: int, garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        with Journal(path, HEADER, 5) as journal:
            journal.add(answers(4, 2, 0))
        whole = path.read_bytes()
        header = whole.index(b"\n") + 1
        kept = whole[: header + cut % (len(whole) - header + 1)]
        path.write_bytes(kept + garbage.replace(b"\n", b""))
        with Journal(path, HEADER, 5) as journal:
            assert journal.done == kept.count(b"\n") - 1
            journal.add(answers(0, 1, 2, 3, 4))
            assert list(journal.lines()) == [line(index) for index in range(5)]


@pytest.mark.parametrize("tail", [b"1 200 {}", b"9 200 {}\n", b"x\n", b"\0\0\0\n", b"1 200 {\n"])
def test_what_is_no_line_of_the_batch_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal"
    with Journal(path, HEADER, 2) as journal:
        journal.add(answers(0))
    before = path.read_bytes()
    path.write_bytes(before + tail)
    with Journal(path, HEADER, 2) as journal:
        assert journal.done == 1
        assert path.read_bytes() == before


@pytest.mark.parametrize(("changed", "name"), [({"seed": 2}, "seed"), ({"input": ""}, "input")])
def test_the_journal_of_another_batch_is_refused(
    tmp_path: Path, changed: dict[str, object], name: str
) -> None:
    path = tmp_path / "journal"
    with Journal(path, HEADER, 2) as journal:
        journal.add(answers(0))
    before = path.read_bytes()
    with pytest.raises(BatchError, match=f"of a run with another {name}"):
        Journal(path, HEADER | changed, 2)
    path.write_bytes(b"something else\n")
    with pytest.raises(BatchError, match="another input"):
        Journal(path, HEADER, 2)
    assert path.read_bytes() == b"something else\n"
    assert before


@pytest.mark.parametrize(("then", "now"), [(True, None), (None, True)])
def test_the_journal_of_a_run_with_another_switch_names_it(
    tmp_path: Path, then: bool | None, now: bool | None
) -> None:
    path = tmp_path / "journal"
    with Journal(path, HEADER | {"--exact": then, "kind of CPU": then and "a"}, 2) as journal:
        journal.add(answers(0))
    said = "with --exact: give it too" if then else "without --exact: leave it out"
    with pytest.raises(BatchError, match=f"is of a run {said}, or delete the file"):
        Journal(path, HEADER | {"--exact": now, "kind of CPU": now and "a"}, 2)


def test_a_journal_without_answers_is_removed(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", HEADER, 2):
        assert (tmp_path / "journal").exists()
    assert not (tmp_path / "journal").exists()


@posix
def test_a_full_disk_is_one_error_and_nothing_is_lost(tmp_path: Path) -> None:
    """A limit of the file's size stands for the disk's: the write is cut in the middle."""
    path = tmp_path / "journal"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path, HEADER, 3) as journal:
        journal.add(answers(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
        try:
            with pytest.raises(BatchError, match=r"cannot be written: File too large\."):
                journal.add(answers(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(path, HEADER, 3) as journal:
        assert journal.done == 1
        journal.add(answers(1, 2))
        assert list(journal.lines()) == [line(index) for index in range(3)]


def test_a_header_that_a_crash_has_torn_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for torn in (b"", b'{"inp', b'{"input\0\0\0'):
        path.write_bytes(torn)
        with Journal(path, HEADER, 1) as journal:
            journal.add(answers(0))
        assert path.read_bytes().startswith(b'{"input":"abc"')
        path.unlink()
    path.write_bytes(b"notes of somebody")
    with pytest.raises(BatchError, match="another input"):
        Journal(path, HEADER, 1)
    assert path.read_bytes() == b"notes of somebody"


def test_the_rows_of_damaged_lines_are_answered_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, HEADER, 4) as journal:
        journal.add(answers(0, 1, 2, 3))
    whole = path.read_bytes()
    first = whole.index(line(0))
    changed = whole[: first + 20] + b"x" + whole[first + 21 :]  # valid JSON, but another text
    for damaged in (changed, changed.replace(b"x", b"\0", 1)):
        path.write_bytes(damaged)
        with Journal(path, HEADER, 4) as journal:
            assert (0 in journal, journal.done) == (False, 3)
            journal.add(answers(0))
            assert list(journal.lines()) == [line(index) for index in range(4)]
    path.write_bytes(whole)
    with Journal(path, HEADER, 4) as journal:
        path.write_bytes(changed)
        with pytest.raises(BatchError, match="is damaged: repeat the command"):
            list(journal.lines())


@posix
def test_a_journal_whose_name_is_removed_still_has_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, HEADER, 2) as journal:
        journal.add(answers(0))
        path.unlink()
        journal.add(answers(1))
        assert list(journal.lines()) == [line(0), line(1)]
