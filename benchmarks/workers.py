"""The commands of workers, and why an engine cannot run or has failed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import msgspec

from issun.benchmarks.engines.registry import missing_packages
from issun.benchmarks.measured import Status
from issun.benchmarks.plan import Target
from issun.benchmarks.worker import Job
from issun.export.config import read_config


def refusal(target: Target, checkpoint: Path | None) -> str:
    """Why the target's engine cannot run the checkpoint; empty if it can."""
    families = target.kind.families
    if checkpoint is not None and families:
        family = read_config(checkpoint)[1].family
        if family not in families:
            return f"supports {', '.join(families)}, not {family}"
    missing = missing_packages(target.kind)
    return f"not installed: {', '.join(missing)}" if missing else ""


def failure(exit_code: int, stderr: str) -> tuple[Status, str]:
    """The status and reason of a worker that ended with a code other than zero."""
    if exit_code < 0:
        return "crashed", f"killed by {signal.Signals(-exit_code).name}"
    return "failed", _last_line(stderr) or f"exit code {exit_code}"


def worker_command(job: Job) -> list[str]:
    """The command of a process that does the job."""
    job_text = msgspec.json.encode(job).decode()
    return [sys.executable, "-P", "-m", "issun.benchmarks.worker", job_text]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
