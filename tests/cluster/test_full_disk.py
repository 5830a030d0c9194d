"""A disk that is full in the middle of a batch: one error, and the command goes on later."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from issun.cluster.batch import BatchOptions, run_batch
from tests.cluster.conftest import Run, make_rows, write_rows
from tests.needs import linux

pytestmark = linux
ROWS = 48


class Disk:
    """A disk of `size` bytes, of which a file leaves as many free as is said."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self._size = folder, size
        self._filler = folder / "filler"

    def leave(self, free: int) -> None:
        """Fill all but `free` bytes."""
        self._filler.write_bytes(b"x" * (self._size - free))

    def make_room(self) -> None:
        """Free what was filled."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk in memory; the test is skipped where none can be mounted."""
    folder, size = tmp_path / "disk", 1 << 20
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"needs mount: {error}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs the right to mount a disk: {error.stderr.splitlines()[0]}")
    yield Disk(folder, size)
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, exact: Path) -> tuple[Path, bytes]:
    """An input, and its output where nothing disturbs it."""
    folder = tmp_path_factory.mktemp("rows")
    source, target = write_rows(folder / "in.jsonl", make_rows(ROWS)), folder / "out.jsonl"
    run_batch(BatchOptions(source=source, target=target, bundle=exact, workers=1, exact=True))
    return source, target.read_bytes()


@pytest.fixture
def batch(
    disk: Disk, exact: Path, expected: tuple[Path, bytes], start: Callable[..., Run]
) -> Callable[[], tuple[int, str]]:
    """`batch()` runs the command with its output on the disk; returns exit code and stderr."""
    own = ("--bundle", exact, "--exact", "--workers", "1", "--slots", "2")
    return lambda: start(expected[0], "-o", disk.folder / "out.jsonl", *own).end()


@pytest.mark.sampled
@pytest.mark.parametrize(("share", "full"), [(0.5, "out.jsonl.journal"), (1.5, "out.jsonl")])
def test_the_command_goes_on_after_room_is_made(
    disk: Disk,
    batch: Callable[[], tuple[int, str]],
    expected: tuple[Path, bytes],
    share: float,
    full: str,
) -> None:
    """The disk has room for a half of the journal, or for it and a half of the output."""
    disk.leave(round(share * len(expected[1])))
    assert batch() == (
        2,
        f"error: {disk.folder / full} cannot be written: No space left on device. The answered "
        "rows are kept: solve that, then repeat the command.\n",
    )
    code, err = batch()  # it is still full
    assert code == 2
    assert err.endswith("then repeat the command.\n")
    assert {path.name for path in disk.folder.iterdir()} == {"filler", "out.jsonl.journal"}
    journal = (disk.folder / "out.jsonl.journal").read_bytes()
    done = journal.count(b"\n") - 1  # whole lines
    assert (done == ROWS) == (full == "out.jsonl")
    assert done > 8
    disk.make_room()
    code, err = batch()
    assert code == 0, err
    assert err.startswith(f"{done} of {ROWS} rows were answered before.\n")
    assert (disk.folder / "out.jsonl").read_bytes() == expected[1]
    assert [path.name for path in disk.folder.iterdir()] == ["out.jsonl"]
