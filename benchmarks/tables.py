"""Formats results as text: Markdown, CSV, a table for the terminal, ratios to an older run."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator
from itertools import combinations

from issun.benchmarks.measured import (
    EngineResult,
    Memory,
    Results,
    depths,
    share_of_limit,
    speed,
    stats,
)
from issun.benchmarks.sizes import gigabytes

_DASH = "-"
_SAME = 0.1  # a ratio between engines that changed by at most this counts as the same
_WIDTH = 110  # columns of a terminal


def heading(results: Results) -> str:
    """One line with date, machine and versions of the measurements."""
    machine = results.machine
    threads = ", ".join(str(n) for n in dict.fromkeys(e.threads for e in results.engines))
    versions = {name: v for e in results.engines for name, v in e.versions.items()}
    ort = f"onnxruntime {versions['onnxruntime']}, " if "onnxruntime" in versions else ""
    limits = [
        f"{stats(found).median / 1e9:.1f} GB/s with {count} threads"
        for count, found in results.bandwidth.items()
    ]
    return (
        f"{results.date[:10]}, {machine.cpu} ({', '.join(machine.flags)}), {threads} threads, "
        f"{ort}Python {machine.python}; read bandwidth {' and '.join(limits) or 'not measured'}."
    )


def markdown(results: Results) -> str:
    """A dated Markdown table, one row per engine; prefill and decode in tokens per second."""
    several = len({engine.threads for engine in results.engines}) > 1
    prefills = [n for n in (128, 512) if _any(results, f"prefill-{n}")]
    contexts = sorted({n for e in results.engines for n in depths(e, "decode")})
    columns = ["engine", *(["threads"] if several else []), "on disk", "conversion"]
    columns += ["conversion peak", "load first / later", *(f"prefill {n}" for n in prefills)]
    columns += [*(f"decode after {n}" for n in contexts), "bandwidth used"]
    columns += ["peak memory (anonymous)"]
    lines = [heading(results), "", _row(columns), "|---" * len(columns) + "|"]
    for engine in results.engines:
        first = [engine.label, *([str(engine.threads)] if several else [])]
        if engine.status != "measured":
            failure = f"{engine.status}: {engine.reason}".replace("|", "\\|")
            lines.append(_row([*first, failure, *[""] * (len(columns) - len(first) - 1)]))
            continue
        share = share_of_limit(results, engine, 128)
        cells = [gigabytes(engine.disk_bytes) if engine.disk_bytes else _DASH, *_converted(engine)]
        cells += [_load(engine)]
        cells += [_rate(engine, f"prefill-{n}") for n in prefills]
        cells += [_rate(engine, f"decode-{n}") for n in contexts]
        cells += [f"{share:.0%}" if share else _DASH, _peak(engine)]
        lines.append(_row(first + cells))
    failed = [f"\n{failure}" for failure in probe_failures(results)]
    return "\n".join([*lines, *failed])


def probe_failures(results: Results) -> Iterator[str]:
    """Messages about engines that decode faster than the measured bandwidth allows."""
    for engine in results.engines:
        for depth in depths(engine, "decode"):
            share = share_of_limit(results, engine, depth)
            if share and share > 1:
                yield (
                    f"The bandwidth measurement failed: {engine.label} reaches {share:.0%} of it "
                    f"when decoding after {depth} tokens."
                )


def _any(results: Results, test: str) -> bool:
    return any(test in engine.samples for engine in results.engines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rate(engine: EngineResult, test: str) -> str:
    rate = speed(engine, test)
    return _DASH if rate is None else f"{rate:,.1f}"


def _converted(engine: EngineResult) -> list[str]:
    done = engine.conversion
    # torch needs no conversion; a short time is only the start of the process.
    if done is None or (done.seconds < 3 and engine.name.startswith("torch")):
        return [_DASH, _DASH]
    return [f"{done.seconds:.0f} s", gigabytes(done.peak)]


def _load(engine: EngineResult) -> str:
    times = [engine.samples.get(name) for name in ("load-first", "load")]
    return " / ".join(f"{stats(t).median:.1f} s" if t else _DASH for t in times)


def _peak(engine: EngineResult) -> str:
    memory = largest(engine)
    if memory is None:
        return _DASH
    return f"{gigabytes(memory.peak)} ({gigabytes(memory.anonymous)})"


def largest(engine: EngineResult) -> Memory | None:
    """The memory at the longest measured context."""
    return engine.memory[max(engine.memory)] if engine.memory else None


def csv_text(results: Results) -> str:
    """One line per test: engine, threads, test, unit, number of samples and their statistics."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("engine", "threads", "test", "unit", "samples")
    writer.writerow([*columns, "mean", "median", "deviation", "minimum"])
    for engine in results.engines:
        start = [engine.name, engine.threads]
        for test, samples in engine.samples.items():
            writer.writerow([*start, test, "s", *stats(samples)])
        for test, unit, value in _single(engine):
            writer.writerow([*start, test, unit, 1, value, value, 0, value])
    return out.getvalue()


def _single(engine: EngineResult) -> Iterator[tuple[str, str, float]]:
    """The values that have no samples."""
    yield "disk", "bytes", engine.disk_bytes
    if engine.conversion:
        yield "conversion", "s", engine.conversion.seconds
        yield "conversion-peak", "bytes", engine.conversion.peak
    for context, memory in engine.memory.items():
        for name in ("peak", "anonymous", "file", "shared"):
            yield f"memory-{name}-{context}", "bytes", getattr(memory, name)
        if memory.steady:
            yield f"memory-steady-{context}", "bytes", memory.steady.total


def terminal(results: Results) -> str:
    """Every test of every engine with speed and spread, for a terminal."""
    lines = textwrap.wrap(heading(results), _WIDTH)
    for engine in results.engines:
        lines += ["", f"{engine.label}, {engine.threads} threads"]
        if engine.status != "measured":
            failure = f"{engine.status}: {engine.reason}"
            lines += textwrap.wrap(failure, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        for test, samples in sorted(engine.samples.items(), key=_order):
            lines.append(f"  {test:<14} {_measured(engine, test, samples)}")
        share = share_of_limit(results, engine, 128)
        if share:
            lines.append(f"  {'bandwidth used':<14} {share:>9.0%} in decode-128")
        for context, memory in sorted(engine.memory.items()):
            steady = f", {gigabytes(memory.steady.total)} afterwards" if memory.steady else ""
            lines.append(
                f"  {f'memory-{context}':<14} {gigabytes(memory.peak):>9} peak (anonymous "
                f"{gigabytes(memory.anonymous)}, file {gigabytes(memory.file)}){steady}"
            )
    for failure in probe_failures(results):
        lines += ["", *textwrap.wrap(failure, _WIDTH)]
    return "\n".join(lines)


def _order(item: tuple[str, list[float]]) -> tuple[int, int]:
    turns = ("turn-ahead", "turn-reading", "turn-reuse", "turn-fresh")
    kinds = ("load-first", "load", "cold", "prefill", "decode", *turns)
    kind, _, size = item[0].rpartition("-")
    if not size.isdigit():
        kind, size = item[0], "0"
    return kinds.index(kind) if kind in kinds else len(kinds), int(size)


def _measured(engine: EngineResult, test: str, samples: list[float]) -> str:
    found = stats(samples)
    spread = found.deviation / found.mean if found.mean else 0.0
    tail = f"± {spread:4.0%}  ({found.number} samples, best {found.minimum * 1e3:,.1f} ms)"
    rate = speed(engine, test) if test.rpartition("-")[2].isdigit() else None
    shown = f"{rate:>9,.1f} tokens/s" if rate else f"{found.median * 1e3:>9,.0f} ms      "
    return f"{shown} {tail}"


def compare(new: Results, old: Results) -> str:
    """Compare the speeds and peaks of two runs, and the ratios between engines.

    The last lines say how many ratios between two engines in a test are nearly the same, and the
    largest change of such a ratio. On a noisy machine these are reproducible, unlike speeds.
    """
    lines = [f"new {new.date[:16]} against old {old.date[:16]}: tokens/s, new / old"]
    # By test and threads, since only engines with the same number of threads are compared.
    changes: dict[str, dict[str, float]] = {}
    for engine in new.engines:
        before = old.engine(engine.name, engine.threads)
        if before is None:
            lines.append(f"{engine.label}, {engine.threads} threads: only in the new results")
            continue
        for test in sorted(set(engine.samples) | set(before.samples)):
            if not test.rpartition("-")[2].isdigit():
                continue
            now, then = speed(engine, test), speed(before, test)
            name = f"{engine.label}, {engine.threads} threads, {test}"
            if now is None or then is None:
                lines.append(f"{name}: only in the {'old' if now is None else 'new'} results")
                continue
            lines.append(f"{name}: {now:,.1f} / {then:,.1f} = {now / then:.3f}")
            key = f"{test}, {engine.threads} threads"
            changes.setdefault(key, {})[engine.label] = now / then
        lines += _memory_lines(engine, before)
    for engine in old.engines:
        if new.engine(engine.name, engine.threads) is None:
            lines.append(f"{engine.label}, {engine.threads} threads: only in the old results")
    return "\n".join([*lines, *_ratio_changes(changes)])


def _memory_lines(engine: EngineResult, before: EngineResult) -> Iterator[str]:
    for context in sorted(engine.memory.keys() | before.memory.keys()):
        name = f"{engine.label}, {engine.threads} threads, memory at {context}"
        now, then = engine.memory.get(context), before.memory.get(context)
        if now is None or then is None or not then.peak:
            yield f"{name}: only in the {'old' if now is None else 'new'} results"
            continue
        ratio = now.peak / then.peak
        yield f"{name}: {gigabytes(now.peak)} / {gigabytes(then.peak)} = {ratio:.3f}"


def _ratio_changes(changes: dict[str, dict[str, float]]) -> Iterator[str]:
    """How much the ratios between two engines in a test changed, from each engine's change."""
    pairs = [
        (max(here[a], here[b]) / min(here[a], here[b]) - 1, test, a, b)
        for test, here in changes.items()
        for a, b in combinations(here, 2)
    ]
    if pairs:
        within = sum(change <= _SAME for change, *_ in pairs)
        yield f"Ratios between engines within {_SAME:.0%}: {within:,} of {len(pairs):,}."
        change, test, *both = max(pairs)
        both.sort(key=changes[test].__getitem__, reverse=True)
        yield (
            f"Largest change of a ratio between engines: {change:.1%} ({test}, {both[0]} to "
            f"{both[1]})."
        )
