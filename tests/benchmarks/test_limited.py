"""Commands under a memory limit, and the script that is run by hand with the 1.3 B shape."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.benchmarks import limited
from issun.benchmarks.limited import BASELINE, LIMITS, Outcome, run_all, run_limited
from issun.benchmarks.sizes import parse_size

HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); time.sleep(0.5)"


def hold(size: int, code: str = HOLD) -> Outcome:
    """Run a process that allocates `size` bytes under a limit of 100 MB."""
    return run_limited("x", [sys.executable, "-c", code, str(size)], 100_000_000)


def test_a_command_below_the_limit_succeeds() -> None:
    done = hold(40_000_000)
    assert (done.exit_code, done.killed) == (0, False)
    assert 40_000_000 < done.peak < 100_000_000
    assert "limit 100 MB   answered  peak" in str(done)


def test_a_command_above_the_limit_is_killed() -> None:
    done = hold(300_000_000)
    assert done.killed
    assert "killed" in str(done)


def test_a_command_that_fails_is_not_reported_as_killed() -> None:
    done = hold(1, "raise SystemExit(1)")
    assert (done.exit_code, done.killed) == (1, False)
    assert "failed" in str(done)


def test_the_monitor_alone_also_kills(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If neither a cgroup nor a scope can be created."""
    monkeypatch.setattr(limited, "_CGROUP", tmp_path / "none")
    monkeypatch.setattr(limited, "_systemd_works", lambda: False)
    done = hold(300_000_000)
    assert (done.means, done.killed) == ("monitor", True)


@pytest.mark.slow
def test_each_precision_is_exported_and_answers(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited, "missing_packages", lambda engine: ["torch"])
    outcomes = list(run_all(checkpoint("head-20-width-100"), tmp_path / "work"))
    assert [outcome.name for outcome in outcomes] == [f"issun {name}" for name in LIMITS]
    assert [outcome.limit for outcome in outcomes] == [parse_size(v) for v in LIMITS.values()]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert f"{BASELINE}: skipped, not installed: torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("issun", "baseline", "code"), [(0, -9, 0), (0, 137, 0), (0, 0, 1), (0, 1, 1), (1, -9, 1)]
)
def test_success_means_issun_answers_and_the_baseline_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, issun: int, baseline: int, code: int
) -> None:
    found = [Outcome("issun int4", 9, "", issun, 9), Outcome(BASELINE, 9, "", baseline, 9)]
    monkeypatch.setattr(limited, "run_all", lambda checkpoint, work: iter(found))
    monkeypatch.setattr(sys, "argv", ["limited", str(tmp_path)])
    assert limited.main() == code
