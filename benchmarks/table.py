"""Exports a checkpoint and prints the README's table: size, speed and memory by precision.

`python -m issun.benchmarks.table CHECKPOINT [--folder DIR]`

Speed and memory come from separate processes. Prefill and decode are medians of several rounds
after a warm-up, on random ids.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from issun.benchmarks.memory import MemoryReport, measure
from issun.runtime import Model
from issun.runtime.session import physical_cores

_ISSUN = [sys.executable, "-m", "issun.cli.main"]
_PROMPT, _STEPS, _ROUNDS = 128, 32, 5
PRECISIONS = ("int8", "int4")
QUESTION = "日本で一番高い山は何ですか。"


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one precision; seconds, tokens a second, bytes."""

    precision: str
    size: int
    export: MemoryReport
    load: float
    prefill: float
    decode: float
    answer: MemoryReport


def measure_precision(checkpoint: Path, precision: str, folder: Path) -> Row:
    """Export `checkpoint` into `folder`, then answer and step with the bundle."""
    bundle = folder / precision
    export = _checked(
        [*_ISSUN, "export", str(checkpoint), "-o", str(bundle), "--precision", precision]
    )
    answer = _checked(
        [
            *(*_ISSUN, "generate", str(bundle), "--instruction", QUESTION, "--seed", "1"),
            *("--min-new-tokens", "100", "--max-new-tokens", "100", "--json"),
        ]
    )
    load, prefill, decode = measure_speed(bundle)
    size = sum(path.stat().st_size for path in bundle.iterdir())
    return Row(precision, size, export, load, prefill, decode, answer)


def measure_speed(bundle: Path) -> tuple[float, float, float]:
    """Load time in seconds; prefill of 128 tokens and decode behind them in tokens a second."""
    started = time.perf_counter()
    model = Model.load(bundle)
    load = time.perf_counter() - started
    ids = np.random.default_rng(0).integers(7, model.manifest.tokens.pieces, _PROMPT).tolist()
    cache = model.new_cache()

    def prefill() -> None:
        cache.rewind(0)
        model.decoder.prefill(cache, ids)

    def decode() -> None:
        cache.rewind(_PROMPT)
        for token in ids[:_STEPS]:
            model.decoder.step(cache, token)

    return load, _PROMPT / _median_time(prefill), _STEPS / _median_time(decode)


def _median_time(work: Callable[[], None]) -> float:
    work()  # the first call takes memory and is slower
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _checked(command: list[str]) -> MemoryReport:
    report = measure(command, quiet=True)
    if report.exit_code:
        raise SystemExit(f"failed with {report.exit_code}: {' '.join(command)}")
    return report


def markdown(rows: list[Row]) -> str:
    """The table, dated, with the machine's name."""
    cpu = _cpu_name()
    lines = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {cpu}, {physical_cores()} threads, "
        f"onnxruntime {version('onnxruntime')}, Python {platform.python_version()}.",
        "",
        "| precision | bundle | export | export's peak memory | load | prefill 128 | "
        "decode after 128 | peak memory of a 100-token answer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.precision} | {row.size / 1e6:,.0f} MB | {row.export.seconds:.0f} s | "
        f"{row.export.peak / 1e6:,.0f} MB | {row.load:.1f} s | {row.prefill:,.0f} tok/s | "
        f"{row.decode:,.1f} tok/s | {row.answer.peak / 1e6:,.0f} MB (anonymous "
        f"{row.answer.anonymous / 1e6:,.0f}) |"
        for row in rows
    ]
    return "\n".join(lines)


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="table")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, help="where the bundles go (default: temporary)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        print(markdown([measure_precision(args.checkpoint, p, folder) for p in PRECISIONS]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
