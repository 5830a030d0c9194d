"""The report's plots, with matplotlib: a colour for each family of engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import EngineResult, Results, depths, speed, stats, token_bytes
from issun.benchmarks.tables import largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people tell apart.
_COLOURS = {
    "issun": "#D55E00",
    "torch": "#000000",
    "optimum": "#999999",
    "ctranslate2": "#0072B2",
    "openvino": "#009E73",
    "llama.cpp": "#CC79A7",
}
_OTHER = "#D55E00"  # a bundle that the user named is issun too
_STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def save_plots(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Write each plot as PNG and SVG to `folder`; gives its SVG text and its caption.

    Raises BenchError where matplotlib is missing.
    """
    made = []
    for name, (draw, caption) in PLOTS.items():
        figure = draw(results)
        for kind in ("png", "svg"):
            figure.savefig(folder / f"{name}.{kind}", dpi=150, bbox_inches="tight")
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
        made.append((_inline(svg, name), caption))
    return made


def _inline(svg: str, name: str) -> str:
    """The `<svg>` for a page that has others: ids of its own, and no vocabularies' addresses."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    return re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def _axes(title: str, x: str, y: str, height: float = 4.8) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BenchError(
            "Benchmarks need {module}: pip install 'issun[bench]'", module=error.name
        ) from error
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _measured(results: Results) -> list[EngineResult]:
    return [engine for engine in results.engines if engine.samples]


def _colour(engine: EngineResult) -> str:
    return next((c for name, c in _COLOURS.items() if engine.name.startswith(name)), _OTHER)


def _style(results: Results, engine: EngineResult) -> Any:
    """Engines of one family differ by their lines."""
    family = [e for e in _measured(results) if _colour(e) == _colour(engine)]
    return _STYLES[family.index(engine) % len(_STYLES)]


def _name(results: Results, engine: EngineResult) -> str:
    several = len({e.threads for e in results.engines}) > 1
    name = f"{engine.label}, {engine.threads} threads" if several else engine.label
    return name.replace("$", r"\$")  # a bundle's name is no formula


def memory_against_speed(results: Results) -> Figure:
    """Each engine as a point: small and fast is top left."""
    figure, axes = _axes(
        "Memory and decode speed",
        "peak resident memory, GB",
        "decode after 128 tokens, tokens/s",
        5.6,
    )
    points = []
    for engine in _measured(results):
        rate, memory = speed(engine, "decode-128"), largest(engine)
        if rate and memory:
            points.append((memory.peak / 1e9, rate, engine))
    for x, y, engine in points:
        axes.scatter(x, y, s=60, color=_colour(engine), zorder=3)
    axes.set_xlim(left=0, right=1.25 * max([x for x, _, _ in points], default=1))
    axes.set_ylim(bottom=0, top=1.15 * max([y for _, y, _ in points], default=1))
    figure.draw_without_rendering()  # or places on the page are not known
    _label_points(axes, [(x, y, _name(results, e), _colour(e)) for x, y, e in points])
    return figure


def _label_points(axes: Axes, points: list[tuple[float, float, str, str]]) -> None:
    """A name at each point, at the nearest of some places where it lies on no other."""
    from matplotlib.text import Text  # noqa: PLC0415
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    unit = axes.figure.dpi / 72
    spots = axes.transData.transform([(x, y) for x, y, *_ in points] or [(0, 0)])
    taken = [Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit) for x, y in spots]
    for x, y, name, colour in sorted(points, key=lambda point: -point[1]):
        for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5):
            for side in (1, -1):
                text = axes.annotate(
                    name,
                    (x, y),
                    xytext=(9 * side, 9 * step),
                    textcoords="offset points",
                    ha="left" if side > 0 else "right",
                    va="center",
                    fontsize=9,
                    color=colour,
                    arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6}
                    if step
                    else None,
                )
                text.get_window_extent()  # puts it in its place, and would count its line
                box = Text.get_window_extent(text)
                inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
                if inside and not any(box.overlaps(other) for other in taken):
                    break
                text.remove()
            else:
                continue
            taken.append(box)
            break
        else:
            axes.annotate(name, (x, y), fontsize=9, color=colour)  # too many to part


def prefill_bars(results: Results) -> Figure:
    """Bars by prompt length."""
    engines = [e for e in _measured(results) if depths(e, "prefill")]
    sizes = sorted({n for e in engines for n in depths(e, "prefill")})
    height = max(3.5, 0.2 * (len(sizes) + 1) * len(engines))
    figure, axes = _axes("Reading a prompt (prefill, warm)", "tokens/s", "", height)
    width = 0.8 / max(1, len(sizes))
    for place, size in enumerate(sizes):
        rates = [speed(engine, f"prefill-{size}") for engine in engines]
        where = [row + place * width for row in range(len(engines))]
        shade = 0.35 + 0.65 * (place + 1) / len(sizes)
        bars = axes.barh(
            where,
            [rate or 0 for rate in rates],
            width,
            color=[_colour(e) for e in engines],
            alpha=shade,
            label=f"{size}",
        )
        shown = [f"{rate:,.0f}  ({size})" if rate else f"-  ({size})" for rate in rates]
        axes.bar_label(bars, shown, padding=3, fontsize=7)
    axes.set_yticks([row + 0.4 - width / 2 for row in range(len(engines))])
    axes.set_yticklabels([_name(results, engine) for engine in engines])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    return figure


def decode_by_depth(results: Results) -> Figure:
    """Lines over the context, with the limit that the machine's bandwidth sets to issun."""
    figure, axes = _axes("Decoding behind a context", "tokens of context", "tokens/s", 5.6)
    for engine in _measured(results):
        rates = {n: speed(engine, f"decode-{n}") or 0.0 for n in depths(engine, "decode")}
        behind = list(rates)
        axes.plot(
            behind,
            list(rates.values()),
            marker="o",
            markersize=4,
            color=_colour(engine),
            linestyle=_style(results, engine),
            label=_name(results, engine),
        )
        limit = results.bandwidth.get(engine.threads)
        if engine.weight_bytes and limit and behind:
            bound = [stats(limit).median / token_bytes(engine, n) for n in behind]
            axes.plot(
                behind,
                bound,
                color="#777777",
                linewidth=1,
                linestyle=_style(results, engine),
                label=f"limit of {_name(results, engine)}",
            )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    _legend(axes)
    return figure


def memory_over_time(results: Results) -> Figure:
    """Resident memory while loading, reading the prompt and answering."""
    figure, axes = _axes(
        "Memory while loading and answering", "seconds since the process began", "resident, GB", 5.6
    )
    for engine in _measured(results):
        memory = largest(engine)
        if memory is None or not memory.moments:
            continue
        seconds = [moment.seconds for moment in memory.moments]
        axes.plot(
            seconds,
            [moment.total / 1e9 for moment in memory.moments],
            color=_colour(engine),
            linestyle=_style(results, engine),
            label=_name(results, engine),
        )
        for when, mark in memory.marks:
            if mark in ("loaded", "first token"):
                nearest = min(memory.moments, key=lambda moment: abs(moment.seconds - when))
                shape = "^" if mark == "loaded" else "o"
                axes.plot(when, nearest.total / 1e9, shape, markersize=5, color=_colour(engine))
    axes.plot([], [], "^", color="#666666", label="loaded")
    axes.plot([], [], "o", color="#666666", label="first token")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


PLOTS: dict[str, tuple[Callable[[Results], Figure], str]] = {
    "memory-speed": (
        memory_against_speed,
        "Peak memory at the longest context measured against decode speed: top left is best.",
    ),
    "prefill": (
        prefill_bars,
        "How fast a prompt is read once the engine is warm; the prompt's length is in brackets.",
    ),
    "decode": (
        decode_by_depth,
        "Decode speed by context. Grey: what the machine's read bandwidth allows, since each token "
        "reads all weights and the cache.",
    ),
    "memory-time": (
        memory_over_time,
        "Resident memory of the process, from its start over loading and the prompt to the answer.",
    ),
}
