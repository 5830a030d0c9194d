"""Commands under a limit of memory, and the proof that the 1.3 B shape is put to by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.benchmarks import limited
from issun.benchmarks.limited import BASELINE, LIMITS, Outcome, prove, run_limited
from issun.benchmarks.sizes import parse_size

HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); time.sleep(0.5)"


def hold(size: int, code: str = HOLD) -> Outcome:
    """A process that holds `size` bytes where 100 MB are allowed."""
    return run_limited("x", [sys.executable, "-c", code, str(size)], 100_000_000)


def test_what_stays_below_the_limit_answers() -> None:
    done = hold(40_000_000)
    assert (done.exit_code, done.killed) == (0, False)
    assert 40_000_000 < done.peak < 100_000_000
    assert "limit 100 MB   answered  peak" in str(done)


def test_what_passes_the_limit_is_killed() -> None:
    done = hold(300_000_000)
    assert done.killed
    assert "killed" in str(done)


def test_what_fails_by_itself_is_not_taken_for_killed() -> None:
    done = hold(1, "raise SystemExit(1)")
    assert (done.exit_code, done.killed) == (1, False)
    assert "failed" in str(done)


def test_the_watcher_alone_kills_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where neither a cgroup nor a scope can be made."""
    monkeypatch.setattr(limited, "_CGROUP", tmp_path / "none")
    monkeypatch.setattr(limited, "_systemd_works", lambda: False)
    done = hold(300_000_000)
    assert (done.means, done.killed) == ("watched", True)


def test_the_proof_exports_and_answers_in_each_precision(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited, "missing_packages", lambda engine: ["torch"])
    outcomes = list(prove(checkpoint("head-20-width-100"), tmp_path / "work"))
    assert [outcome.name for outcome in outcomes] == [f"issun {name}" for name in LIMITS]
    assert [outcome.limit for outcome in outcomes] == [parse_size(v) for v in LIMITS.values()]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert f"{BASELINE}: skipped, not installed: torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("issun", "baseline", "code"), [(0, -9, 0), (0, 137, 0), (0, 0, 1), (0, 1, 1), (1, -9, 1)]
)
def test_sound_is_that_issun_answers_and_the_baseline_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, issun: int, baseline: int, code: int
) -> None:
    found = [Outcome("issun int4", 9, "", issun, 9), Outcome(BASELINE, 9, "", baseline, 9)]
    monkeypatch.setattr(limited, "prove", lambda checkpoint, work: iter(found))
    monkeypatch.setattr(sys, "argv", ["limited", str(tmp_path)])
    assert limited.main() == code
