"""Workers get cores of their own, as long as there are enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from issun.cluster import pinning
from tests.needs import linux

pytestmark = linux
CODE = """
import os, sys
from issun.cluster.pinning import pin
print(pin(int(sys.argv[1])), sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def start(cores: int) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(cores)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, process.stdout.readline().strip()


@pytest.mark.slow
def test_each_process_gets_other_cores() -> None:
    cores = pinning._cores()
    if len(cores) < 2 or pinning.physical_cores() < len(cores):
        pytest.skip("needs two cores and no quota")
    every = sorted(os.sched_getaffinity(0))
    first, bound = start(1)
    second, other = start(len(cores) - 1)
    third, none = start(1)
    try:
        mine, its = sorted(cores[0]), sorted(set().union(*cores[1:]))
        assert bound == f"{mine} {mine}"
        assert other == f"{its} {its}"
        assert none == f"[] {every}"
        first.kill()  # which frees its core
        first.wait()
        fourth, again = start(1)
        fourth.kill()
        assert again == bound
    finally:
        for process in (first, second, third):
            process.kill()
            process.wait()


def test_with_a_quota_nothing_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "physical_cores", lambda: len(pinning._cores()) - 1)
    before = os.sched_getaffinity(0)
    assert pinning.pin(1) == []
    assert os.sched_getaffinity(0) == before


@pytest.mark.slow
def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, time; from issun.cluster.pinning import one_at_a_time\n"
        "with one_at_a_time('test'):\n"
        "    file = open(sys.argv[1], 'a', buffering=1)\n"
        "    print('in', file=file); time.sleep(0.2); print('out', file=file)\n"
    )
    path = tmp_path / "log"
    processes = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert path.read_text(encoding="utf-8") == "in\nout\n" * 3
