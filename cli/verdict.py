"""What a benchmark run has found, in words."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from issun.cli.language import language, tr

if TYPE_CHECKING:
    from issun.benchmarks.measured import EngineResult, Results

_MEMORY_BOUND = 0.6  # share of a step that reading takes at the measured bandwidth
_MAX_SPREAD = 0.1  # between the rounds


def verdict(results: Results) -> Iterator[str]:
    """Yield a paragraph for each engine that was measured."""
    from issun.benchmarks.errors import one_line  # noqa: PLC0415

    for engine in results.engines:
        if engine.status == "measured" and (sentences := list(_sentences(results, engine))):
            yield f"{one_line(engine.label)}: " + ("" if language() == "ja" else " ").join(
                sentences
            )


def _sentences(results: Results, engine: EngineResult) -> Iterator[str]:
    from issun.benchmarks.measured import latency  # noqa: PLC0415
    from issun.benchmarks.sizes import gigabytes  # noqa: PLC0415
    from issun.benchmarks.tables import largest  # noqa: PLC0415

    found = latency(engine)
    if found.throughput:
        size = max(found.throughput)
        yield tr(
            "{speed:.1f} tokens/s after a {size:,}-token prompt (ITL p50 {itl:.0f} ms)."
        ).format(speed=found.throughput[size], size=size, itl=found.itl[size].p50 * 1e3)
        yield from _limit(results, engine, size)
    if found.ttft:
        size = max(found.ttft)
        yield tr("The first token of a {size:,}-token prompt takes {seconds:.2f} s (TTFT).").format(
            size=size, seconds=found.ttft[size].p50
        )
    if memory := largest(engine):
        yield tr("It needs {peak} of memory with {context:,} tokens of context.").format(
            peak=gigabytes(memory.peak), context=max(engine.memory)
        )
    yield from _energy(engine)
    yield from _repeatability(results, engine)


def _limit(results: Results, engine: EngineResult, size: int) -> Iterator[str]:
    from issun.benchmarks.measured import share_of_limit  # noqa: PLC0415

    share = share_of_limit(results, engine, size)
    if share is None:
        return
    if share > 1:
        yield tr("The bandwidth was measured too low to say what limits decoding.")
    elif share >= _MEMORY_BOUND:
        yield tr("Memory-bound: {share:.0%} of what this machine can read.").format(share=share)
    else:
        yield tr(
            "Compute-bound: {share:.0%} of what this machine can read, so the CPU sets the speed."
        ).format(share=share)


def _energy(engine: EngineResult) -> Iterator[str]:
    for context in sorted(engine.energy)[-1:]:
        if (package := engine.energy[context].package) is not None:
            yield tr("A token takes {joules:.2f} J above idle (CPU package).").format(
                joules=package
            )


def _repeatability(results: Results, engine: EngineResult) -> Iterator[str]:
    """Say so if rounds differ much, or if there is nothing to compare."""
    if engine.rounds == 1:
        yield tr("This is from one round; --rounds 3 shows how well it repeats.")
        return
    for test, samples in engine.samples.items():
        if test.startswith("decode-") and (count := results.new_tokens):
            rounds = [median(samples[i : i + count]) for i in range(0, len(samples), count)]
            spread = max(rounds) / min(rounds) - 1
            if spread > _MAX_SPREAD:
                yield tr(
                    "The rounds differ by {spread:.0%}: close other programs and repeat."
                ).format(spread=spread)
                return
