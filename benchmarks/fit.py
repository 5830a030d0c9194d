"""Determines which engines and contexts fit into a machine's memory, from measured peaks."""

from __future__ import annotations

from dataclasses import dataclass

from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import EngineResult, Results, speed

RESERVE = 500_000_000  # bytes left to the system and other programs


@dataclass(frozen=True, slots=True)
class Fit:
    """An engine, the longest context that fits (0 if none), and its peak at the full context."""

    engine: EngineResult
    context: int
    full: float  # bytes

    @property
    def decode(self) -> float | None:
        """Tokens per second after a prompt of 128."""
        return speed(self.engine, "decode-128")


def fit(results: Results, ram: int, *, reserve: int = RESERVE) -> list[Fit]:
    """All engines with measured memory, sorted by context that fits and then by speed.

    Memory is assumed to be linear in the context, as the KV cache is. Raises BenchError if no
    engine has two measured contexts.
    """
    found = []
    for engine in results.engines:
        if len(engine.memory) >= 2:
            n_positions = results.shape["n_positions"]
            full, per_token = _line(engine, n_positions)
            room = ram - reserve - (full - per_token * n_positions)
            context = room // per_token if per_token > 0 else (n_positions if room >= 0 else 0)
            limited = max(0, min(int(context), n_positions))
            found.append(Fit(engine, limited, full))
    if not found:
        raise BenchError("No engine in the results has memory measurements at two context lengths.")
    return sorted(found, key=lambda f: (-f.context, -(f.decode or 0)))


def recommended(fits: list[Fit], *, slow_int4: bool) -> Fit:
    """The fit to use: the first, or issun's int8 if it has room for as long a context.

    `slow_int4` is for CPUs that lack the kernels of the measured one for 4-bit weights.
    """
    longest = (f for f in fits if f.context == fits[0].context)
    int8 = (f for f in longest if slow_int4 and f.engine.name.startswith("issun-int8"))
    return next(int8, fits[0])


def _line(engine: EngineResult, context: int) -> tuple[float, float]:
    """The peak at `context` and the bytes per token, from the shortest and longest context."""
    short, long = min(engine.memory), max(engine.memory)
    low, high = engine.memory[short].peak, engine.memory[long].peak
    per_token = (high - low) / (long - short)
    return high + per_token * (context - long), per_token
