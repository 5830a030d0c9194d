"""Shows that issun answers within a memory limit under which the float32 baseline is killed.

`python -m issun.benchmarks.limited CHECKPOINT [--work DIR]` exports the checkpoint to int4 and
int8, runs each under a limit (1.2 and 1.8 GB), and starts the torch baseline under the larger one.

A monitor sums the resident memory of the process tree every 20 ms and kills it above the limit.
If possible, a memory cgroup or a systemd user scope sets the same limit. A cgroup alone would not
be enough, since it does not count file pages that other processes have read before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from issun.benchmarks.engines.registry import engine_class, missing_packages
from issun.benchmarks.memory import watch
from issun.benchmarks.sizes import gigabytes, parse_size
from issun.benchmarks.start import QUESTION
from issun.benchmarks.worker import Job
from issun.benchmarks.workers import worker_command
from issun.export import ExportOptions, export
from issun.export.config import read_config

LIMITS = {"int4": "1.2GB", "int8": "1.8GB"}
BASELINE, BASELINE_LIMIT = "torch-float32", "1.8GB"
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command under a memory limit, and how the limit was enforced."""

    name: str
    limit: int
    means: str
    exit_code: int
    peak: int

    @property
    def killed(self) -> bool:
        """True if the limit ended it."""
        return self.exit_code in (-9, 137)

    def __str__(self) -> str:
        """One line of output."""
        result = "killed" if self.killed else "answered" if self.exit_code == 0 else "failed"
        return (
            f"{self.name:<14} limit {gigabytes(self.limit):<8} {result:<9} peak "
            f"{gigabytes(self.peak):<8} ({self.means})"
        )


def run_limited(name: str, command: list[str], limit: int) -> Outcome:
    """Run `command` with at most `limit` bytes of memory."""
    with memory_cgroup(limit) as group:
        if group is not None:
            inside = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
            done = watch(inside, limit=limit)
            means = f"cgroup {group.parent} and monitor"
            return Outcome(name, limit, means, done.exit_code, done.memory.peak)
    if _systemd_works():
        scope = ["systemd-run", "--user", "--scope", "-q", "-p", f"MemoryMax={limit}"]
        done = watch([*scope, "-p", "MemorySwapMax=0", *command], limit=limit)
        means = "systemd scope and monitor"
        return Outcome(name, limit, means, done.exit_code, done.memory.peak)
    done = watch(command, limit=limit)
    return Outcome(name, limit, "monitor", done.exit_code, done.memory.peak)


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path | None]:
    """A new memory cgroup with this limit and no swap; None if none can be created."""
    for root, name in ((_CGROUP / "memory", "memory.limit_in_bytes"), (_CGROUP, "memory.max")):
        group = root / f"issun-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit))
        except OSError:
            group.rmdir()
            continue
        swap = {"memory.memsw.limit_in_bytes": limit, "memory.swap.max": 0}
        for file in filter(Path.exists, (group / each for each in swap)):
            file.write_text(str(swap[file.name]))
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None


def _systemd_works() -> bool:
    if shutil.which("systemd-run") is None:
        return False
    probe = ["systemd-run", "--user", "--scope", "-q", "-p", "MemoryMax=100M", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def run_all(checkpoint: Path, work: Path) -> Iterator[Outcome]:
    """Export and run each precision under its limit, then start the baseline."""
    work.mkdir(parents=True, exist_ok=True)
    for precision, limit in LIMITS.items():
        bundle = work / precision
        if not bundle.exists():
            unfitted = False if precision == "int4" else None  # only speed and memory are measured
            options = ExportOptions(precision=precision, gptq=unfitted)  # type: ignore[arg-type]
            export(checkpoint, bundle, options)
        command = [sys.executable, "-P", "-m", "issun.cli.main", "generate", str(bundle)]
        command += ["--instruction", QUESTION, "--seed", "1"]
        command += ["--min-new-tokens", "32", "--max-new-tokens", "32"]
        yield run_limited(f"issun {precision}", command, parse_size(limit))
    missing = missing_packages(engine_class(BASELINE))
    if missing:
        print(f"{BASELINE}: skipped, not installed: {', '.join(missing)}")
        return
    job = Job(
        work="memory",
        engine=BASELINE,
        checkpoint=str(checkpoint),
        folder=str(work),
        context=64,
        new_tokens=32,
        vocab_size=read_config(checkpoint)[1].vocab_size,
    )
    yield run_limited(BASELINE, worker_command(job), parse_size(BASELINE_LIMIT))


def main() -> int:
    """Run all; returns 1 if issun did not answer or the baseline was not killed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="limited")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, help="folder to keep bundles in (default: temporary)")
    args = parser.parse_args()
    temporary = None if args.work else tempfile.mkdtemp()
    as_expected = True
    try:
        for outcome in run_all(args.checkpoint.resolve(), args.work or Path(str(temporary))):
            print(outcome, flush=True)
            is_baseline = outcome.name == BASELINE
            as_expected &= outcome.killed if is_baseline else outcome.exit_code == 0
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
