"""Memory of a process and its children by kind of page, and the limit that kills them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from issun.benchmarks.memory import watch


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_memory_of_children_counts() -> None:
    """An idle parent, and a child that allocates 64 MB."""
    child = "import time; held = b'x' * 64_000_000; time.sleep(0.4)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    done = watch(python(code))
    assert done.exit_code == 0
    assert done.memory.peak > 64_000_000
    assert done.memory.anonymous > 64_000_000


def test_successive_children_do_not_add_up() -> None:
    child = "import time; held = b'x' * 64_000_000; time.sleep(0.2)"
    one = f"subprocess.run([sys.executable, '-c', {child!r}])"
    code = f"import subprocess, sys; [{one} for _ in '123']"
    memory = watch(python(code)).memory
    assert 64_000_000 < memory.peak < 2 * 64_000_000


def test_mapped_files_are_file_pages(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 50_000_000)
    code = (
        "import mmap, sys, time; f = open(sys.argv[1], 'rb');"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sum(m[::4096]); time.sleep(0.3)"
    )
    memory = watch([*python(code), str(path)]).memory
    assert memory.file > 50_000_000
    assert memory.anonymous < 50_000_000


def test_the_limit_kills_the_tree() -> None:
    code = "import time; held = b'x' * 100_000_000; time.sleep(30); print('lived')"
    done = watch(python(code), limit=60_000_000, on_line=lambda line, used: None)
    assert done.over_limit
    assert done.exit_code == -9
    assert done.memory.seconds < 20


def test_psutil_is_used_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows: unshared pages, and the rest of the resident memory."""
    monkeypatch.setattr("issun.benchmarks.memory._LINUX", False)
    held = "held = b'x' * 64_000_000"
    found = watch(python(f"import time; {held}; time.sleep(0.4)")).memory
    assert 64_000_000 < found.anonymous < 100_000_000
    assert 0 < found.file < 64_000_000
    assert found.peak >= found.anonymous + found.file


def test_lines_come_with_the_memory_and_stderr_is_kept() -> None:
    held = "held = b'x' * 64_000_000; time.sleep(0.4); print('one', flush=True)"
    code = f"import sys, time; {held}; print('oh no', file=sys.stderr); sys.exit(3)"
    seen: list[tuple[str, int]] = []
    done = watch(python(code), on_line=lambda line, used: seen.append((line, used)))
    ((line, used),) = seen
    assert line == "one\n"
    assert 64_000_000 < used <= done.memory.peak
    assert (done.exit_code, done.stderr) == (3, "oh no\n")


def test_the_memory_command(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    command = [sys.executable, "-m", "issun.benchmarks.memory", "--json", str(path)]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", "print('answer'); raise SystemExit(4)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "answer\n")
    assert done.stderr.startswith("peak ")
    assert json.loads(path.read_text())["peak"] > 2**20
