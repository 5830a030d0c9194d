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
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from issun.benchmarks.memory import MemoryReport, measure
from issun.runtime import Model
from issun.runtime.manifest import KV_CACHE_TYPES
from issun.runtime.session import physical_cores

_ISSUN = [sys.executable, "-m", "issun.cli.main"]
_PREFILLS, _DEPTHS, _STEPS, _ROUNDS = (128, 512), (128, 900), 16, 5
PRECISIONS = ("int8", "int4")
QUESTION = "日本で一番高い山は何ですか。"


@dataclass(frozen=True, slots=True)
class Speed:
    """Load in seconds; prefill and decode in tokens a second by prompt length and by depth."""

    load: float
    prefill: dict[int, float]
    decode: dict[int, float]


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one kind of bundle; `size` in bytes."""

    precision: str
    kv_cache: str
    size: int
    export: MemoryReport
    speed: Speed
    answer: MemoryReport


def measure_bundle(checkpoint: Path, precision: str, kv_cache: str, folder: Path) -> Row:
    """Export `checkpoint` into `folder`, then answer and step with the bundle."""
    bundle = folder / f"{precision}-{kv_cache}"
    export = _checked(
        [
            *(*_ISSUN, "export", str(checkpoint), "-o", str(bundle)),
            *("--precision", precision, "--kv-cache", kv_cache),
        ]
    )
    answer = _checked(
        [
            *(*_ISSUN, "generate", str(bundle), "--instruction", QUESTION, "--seed", "1"),
            *("--min-new-tokens", "100", "--max-new-tokens", "100", "--json"),
        ]
    )
    size = sum(path.stat().st_size for path in bundle.iterdir())
    row = Row(precision, kv_cache, size, export, measure_speed(bundle), answer)
    shutil.rmtree(bundle)
    return row


def measure_speed(bundle: Path) -> Speed:
    """Load `bundle`, read prompts of random ids, and decode behind them."""
    started = time.perf_counter()
    model = Model.load(bundle)
    load = time.perf_counter() - started
    pieces = model.manifest.tokens.pieces
    ids = np.random.default_rng(0).integers(7, pieces, max(_DEPTHS)).tolist()
    cache = model.new_cache()

    def prefill(length: int) -> None:
        cache.rewind(0)
        model.decoder.prefill(cache, ids[:length])

    def decode(depth: int) -> None:
        cache.rewind(depth)
        for token in ids[:_STEPS]:
            model.decoder.step(cache, token)

    prefills, decodes = {}, {}
    for length in _PREFILLS:
        prefills[length] = length / _median_time(partial(prefill, length))
    for depth in _DEPTHS:
        prefill(depth)
        decodes[depth] = _STEPS / _median_time(partial(decode, depth))
    return Speed(load, prefills, decodes)


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
    columns = ["precision", "KV cache", "bundle", "export", "its peak memory", "load"]
    columns += [f"prefill {length}" for length in _PREFILLS]
    columns += [f"decode after {depth}" for depth in _DEPTHS]
    columns += ["peak memory of a 100-token answer"]
    lines = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {cpu}, {physical_cores()} threads, "
        f"onnxruntime {version('onnxruntime')}, Python {platform.python_version()}. "
        "Prefill and decode in tokens a second.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for row in rows:
        speeds = [*row.speed.prefill.values(), *row.speed.decode.values()]
        cells = [row.precision, row.kv_cache, f"{row.size / 1e6:,.0f} MB"]
        cells += [f"{row.export.seconds:.0f} s", f"{row.export.peak / 1e6:,.0f} MB"]
        cells += [f"{row.speed.load:.1f} s", *(f"{speed:,.1f}" for speed in speeds)]
        answer = row.answer
        cells += [f"{answer.peak / 1e6:,.0f} MB (anonymous {answer.anonymous / 1e6:,.0f})"]
        lines.append(f"| {' | '.join(cells)} |")
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
        kinds = [(p, k) for p in PRECISIONS for k in KV_CACHE_TYPES]
        print(markdown([measure_bundle(args.checkpoint, p, k, folder) for p, k in kinds]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
