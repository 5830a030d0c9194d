"""Ratios of the speeds and peaks of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from issun.benchmarks.errors import one_line
from issun.benchmarks.measured import EngineResult, Results, speed
from issun.benchmarks.sizes import gigabytes

_SAME = 0.1  # a ratio between engines that changed by at most this counts as the same


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
            if not test.rpartition("-")[2].isdecimal():
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
    return "\n".join(map(one_line, [*lines, *_ratio_changes(changes)]))


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
