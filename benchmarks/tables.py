"""Formats results as text: Markdown, CSV, JSON, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from issun.benchmarks.energy import Joules
from issun.benchmarks.errors import one_line
from issun.benchmarks.measured import (
    EngineResult,
    Memory,
    Results,
    depths,
    energy_limit,
    latency,
    share_of_limit,
    speed,
    stats,
)
from issun.benchmarks.sizes import gigabytes
from issun.runtime.decoding.latency import Percentiles

_DASH = "-"
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
    return one_line(
        f"{results.date[:10]}, {machine.cpu} ({', '.join(machine.flags)}), {threads} threads, "
        f"{ort}Python {machine.python}; read bandwidth {' and '.join(limits) or 'not measured'}."
    )


def markdown(results: Results) -> str:
    """A dated Markdown table, one row per engine; prefill and decode in tokens per second."""
    several = len({engine.threads for engine in results.engines}) > 1
    prefills, contexts = (
        sorted({n for engine in results.engines for n in depths(engine, kind)})
        for kind in ("prefill", "decode")
    )
    columns = ["engine", *(["threads"] if several else []), "on disk", "conversion"]
    columns += ["conversion peak", "load first / later", *(f"prefill {n}" for n in prefills)]
    columns += [*(f"decode after {n}" for n in contexts), "bandwidth used"]
    columns += ["peak memory (anonymous)"]
    lines = [heading(results), "", _row(columns), "|---" * len(columns) + "|"]
    for engine in results.engines:
        first = [engine.label, *([str(engine.threads)] if several else [])]
        if engine.status != "measured":
            failure = f"{engine.status}: {engine.reason}"
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
                yield one_line(
                    f"The bandwidth measurement failed: {engine.label} reaches {share:.0%} of it "
                    f"when decoding after {depth} tokens."
                )


def _row(cells: list[str]) -> str:
    shown = (one_line(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(shown)} |"


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


def json_text(results: Results) -> str:
    """The results file as JSON, with each engine's latency in seconds."""
    content: dict[str, Any] = msgspec.to_builtins(results)
    for entry, engine in zip(content["engines"], results.engines, strict=True):
        entry["latency"] = msgspec.to_builtins(latency(engine), str_keys=True)
    return msgspec.json.format(msgspec.json.encode(content), indent=1).decode()


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
        for name in ("peak", "anonymous", "file", "shared", "resting"):
            yield f"memory-{name}-{context}", "bytes", getattr(memory, name)


def terminal(results: Results) -> str:
    """The latency, speed, memory and energy of every engine, for a terminal."""
    lines = textwrap.wrap(heading(results), _WIDTH)
    for engine in results.engines:
        lines += ["", one_line(f"{engine.label}, {engine.threads} threads")]
        if engine.status != "measured":
            failure = one_line(f"{engine.status}: {engine.reason}")
            lines += textwrap.wrap(failure, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        lines += [f"  {name:<14} {text}" for name, text in _measured(results, engine)]
    for failure in probe_failures(results):
        lines += ["", *textwrap.wrap(failure, _WIDTH)]
    return "\n".join(lines)


def _measured(results: Results, engine: EngineResult) -> Iterator[tuple[str, str]]:
    """The lines of an engine: the name of a measurement, and its values."""
    found = latency(engine)
    for test, samples in sorted(engine.samples.items()):
        if not test.startswith(("prefill-", "decode-")):
            yield test, _median(samples)
    for size, ttft in found.ttft.items():
        rate = speed(engine, f"prefill-{size}") or 0
        yield f"TTFT {size}", f"{_spread(ttft)}  prefill {rate:,.1f} tokens/s"
    for size, itl in found.itl.items():
        yield f"ITL {size}", f"{_spread(itl)}  {len(engine.samples[f'decode-{size}'])} tokens"
        yield (
            f"TPOT {size}",
            f"{found.tpot[size] * 1e3:,.1f} ms  throughput {found.throughput[size]:,.1f} tokens/s",
        )
        if share := share_of_limit(results, engine, size):
            yield f"bandwidth {size}", f"{share:.0%} of what this machine can read"
    for context, memory in sorted(engine.memory.items()):
        resting = f", {gigabytes(memory.resting)} afterwards" if memory.resting else ""
        yield (
            f"memory {context}",
            f"{gigabytes(memory.peak)} peak (anonymous {gigabytes(memory.anonymous)}, file "
            f"{gigabytes(memory.file)}){resting}",
        )
    known = {n: found for n, found in sorted(engine.energy.items()) if found != Joules()}
    if engine.energy and not known:
        yield "energy", "cannot be measured on this machine"
    for context, energy in known.items():
        limit = _joules(energy_limit(results, engine, context))
        yield (
            f"energy {context}",
            f"{_joules(energy)} a token; reading weights and KV cache alone takes {limit}",
        )


def _spread(found: Percentiles) -> str:
    values = ("p50", found.p50), ("p90", found.p90), ("p99", found.p99)
    return "  ".join(f"{name} {value * 1e3:,.1f}" for name, value in values) + " ms"


def _median(samples: list[float]) -> str:
    found = stats(samples)
    spread = found.deviation / found.mean if found.mean else 0.0
    return f"{found.median * 1e3:,.0f} ms ± {spread:.0%} ({found.number} samples)"


def _joules(energy: Joules) -> str:
    parts = {"package": energy.package, "DRAM": energy.dram}
    shown = [f"{name} {value:.3g} J" for name, value in parts.items() if value is not None]
    return " and ".join(shown) or "an unknown part"
