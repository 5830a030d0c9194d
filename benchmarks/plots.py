"""The report's plots, with matplotlib."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from issun.benchmarks.figures import (
    add_legend,
    colour_of,
    label_points,
    make_axes,
    measured,
    name_of,
    style_of,
)
from issun.benchmarks.measured import Results, depths, speed, stats, token_bytes
from issun.benchmarks.tables import largest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_Found = TypeVar("_Found")


def save_plots(
    found: _Found, plots: Mapping[str, tuple[Callable[[_Found], Figure], str]], folder: Path
) -> list[tuple[str, str]]:
    """Write each of `plots` of `found` as PNG and SVG to `folder`; returns SVGs with captions.

    Raises BenchError if matplotlib is missing.
    """
    made = []
    for name, (draw, caption) in plots.items():
        figure = draw(found)
        folder.mkdir(parents=True, exist_ok=True)  # not before a plot has succeeded
        _save(figure, folder / name)
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
        made.append((_inline(svg, name), caption))
    return made


def _save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG and as reproducible SVG."""
    from matplotlib import rc_context  # noqa: PLC0415

    # Text as text takes a third of the size of outlines; the salt makes ids reproducible.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        for kind in ("png", "svg"):
            figure.savefig(path.with_suffix(f".{kind}"), dpi=150, bbox_inches="tight")


def _inline(svg: str, name: str) -> str:
    """The `<svg>` element for an HTML page, with unique ids, without what a page does not need."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    # matplotlib repeats its list of fonts in each text, indents, and writes millionths of a point.
    svg = re.sub(r"font-family: [^;\"]*", "font-family: 'DejaVu Sans', sans-serif", svg)
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)
    svg = re.sub(r"\n +", "\n", svg)
    return re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def memory_against_speed(results: Results) -> Figure:
    """Engines as points; small and fast is top left."""
    figure, axes = make_axes(
        "Memory and decode speed",
        "peak resident memory, GB",
        "decode after 128 tokens, tokens/s",
        5.6,
    )
    points = []
    for engine in measured(results):
        rate, memory = speed(engine, "decode-128"), largest(engine)
        if rate and memory:
            points.append((memory.peak / 1e9, rate, engine))
    for x, y, engine in points:
        axes.scatter(x, y, s=60, color=colour_of(engine), zorder=3)
    axes.set_xlim(left=0, right=1.25 * max([x for x, _, _ in points], default=1))
    axes.set_ylim(bottom=0, top=1.15 * max([y for _, y, _ in points], default=1))
    figure.draw_without_rendering()  # computes positions on the page
    label_points(axes, [(x, y, name_of(results, e), colour_of(e)) for x, y, e in points])
    return figure


def prefill_bars(results: Results) -> Figure:
    """Bars by prompt length."""
    engines = [e for e in measured(results) if depths(e, "prefill")]
    sizes = sorted({n for e in engines for n in depths(e, "prefill")})
    height = max(3.5, 0.2 * (len(sizes) + 1) * len(engines))
    figure, axes = make_axes("Prefill (warm)", "tokens/s", "", height)
    width = 0.8 / max(1, len(sizes))
    for place, size in enumerate(sizes):
        rates = [speed(engine, f"prefill-{size}") for engine in engines]
        where = [row + place * width for row in range(len(engines))]
        shade = 0.35 + 0.65 * (place + 1) / len(sizes)
        bars = axes.barh(
            where,
            [rate or 0 for rate in rates],
            width,
            color=[colour_of(e) for e in engines],
            alpha=shade,
            label=f"{size}",
        )
        shown = [f"{rate:,.0f}  ({size})" if rate else f"-  ({size})" for rate in rates]
        axes.bar_label(bars, shown, padding=3, fontsize=7)
    axes.set_yticks([row + 0.4 - width / 2 for row in range(len(engines))])
    axes.set_yticklabels([name_of(results, engine) for engine in engines])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    return figure


def decode_by_depth(results: Results) -> Figure:
    """Lines over the context, with the limit set by the machine's read bandwidth."""
    figure, axes = make_axes("Decode speed by context", "tokens of context", "tokens/s", 5.6)
    for engine in measured(results):
        rates = {n: speed(engine, f"decode-{n}") or 0.0 for n in depths(engine, "decode")}
        contexts = list(rates)
        axes.plot(
            contexts,
            list(rates.values()),
            marker="o",
            markersize=4,
            color=colour_of(engine),
            linestyle=style_of(results, engine),
            label=name_of(results, engine),
        )
        limit = results.bandwidth.get(engine.threads)
        if engine.weight_bytes and limit and contexts:
            bound = [stats(limit).median / token_bytes(engine, n) for n in contexts]
            axes.plot(
                contexts,
                bound,
                color="#777777",
                linewidth=1,
                linestyle=style_of(results, engine),
                label=f"limit of {name_of(results, engine)}",
            )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    add_legend(axes)
    return figure


def memory_over_time(results: Results) -> Figure:
    """Resident memory during load, prefill and decode."""
    figure, axes = make_axes(
        "Memory over time", "seconds since the process started", "resident memory, GB", 5.6
    )
    for engine in measured(results):
        memory = largest(engine)
        if memory is None or not memory.moments:
            continue
        seconds = [moment.seconds for moment in memory.moments]
        axes.plot(
            seconds,
            [moment.total / 1e9 for moment in memory.moments],
            color=colour_of(engine),
            linestyle=style_of(results, engine),
            label=name_of(results, engine),
        )
        for when, mark in memory.marks:
            if mark in ("loaded", "first token"):
                nearest = min(memory.moments, key=lambda moment: abs(moment.seconds - when))
                shape = "^" if mark == "loaded" else "o"
                axes.plot(when, nearest.total / 1e9, shape, markersize=5, color=colour_of(engine))
    axes.plot([], [], "^", color="#666666", label="loaded")
    axes.plot([], [], "o", color="#666666", label="first token")
    axes.set_ylim(bottom=0)
    add_legend(axes)
    return figure


PLOTS: dict[str, tuple[Callable[[Results], Figure], str]] = {
    "memory-speed": (
        memory_against_speed,
        "Peak memory at the longest context measured against decode speed: top left is best.",
    ),
    "prefill": (
        prefill_bars,
        "Prefill speed of a warm engine; the prompt length in tokens is in brackets.",
    ),
    "decode": (
        decode_by_depth,
        "Decode speed by context. Grey: the limit of the machine's read bandwidth, since each "
        "token reads all weights and the KV cache.",
    ),
    "memory-time": (
        memory_over_time,
        "Resident memory of the process from its start through load and prefill to the answer.",
    ),
}
