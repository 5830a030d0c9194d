"""Shared parts of the plots: axes, a colour for each family of engines, names and legends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import EngineResult, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colour-blind-safe palette of Okabe and Ito.
_COLOURS = {
    "issun": "#D55E00",
    "torch": "#000000",
    "optimum": "#999999",
    "ctranslate2": "#0072B2",
    "openvino": "#009E73",
    "llama.cpp": "#CC79A7",
}
_OTHER = "#D55E00"  # a user's bundle is issun too
_STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def make_axes(title: str, x: str, y: str, height: float = 4.8) -> tuple[Figure, Axes]:
    """A figure with one plot; raises BenchError if matplotlib is missing."""
    # matplotlib's font cache goes into issun's cache folder by default.
    os.environ.setdefault("MPLCONFIGDIR", str(user_cache_path("issun") / "matplotlib"))
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BenchError(
            'Benchmarks need {module}: pip install "issun[bench]"', module=error.name
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


def measured(results: Results) -> list[EngineResult]:
    """The engines with samples."""
    return [engine for engine in results.engines if engine.samples]


def colour_of(engine: EngineResult) -> str:
    """The colour of the engine's family."""
    return colour_for(engine.name)


def colour_for(name: str) -> str:
    """The colour of the family of the engine called `name`, or of a bundle."""
    return next((c for family, c in _COLOURS.items() if name.startswith(family)), _OTHER)


def style_of(results: Results, engine: EngineResult) -> Any:
    """A line style that differs within a family of engines."""
    family = [e for e in measured(results) if colour_of(e) == colour_of(engine)]
    return _STYLES[family.index(engine) % len(_STYLES)]


def name_of(results: Results, engine: EngineResult) -> str:
    """The engine's label, with its threads if the numbers differ."""
    several = len({e.threads for e in results.engines}) > 1
    name = f"{engine.label}, {engine.threads} threads" if several else engine.label
    return name.replace("$", r"\$")  # not math text


def label_points(axes: Axes, points: list[tuple[float, float, str, str]]) -> None:
    """Put a name at each point, at the nearest position that overlaps nothing."""
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
                text.get_window_extent()  # positions the text; its extent includes the arrow
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
            axes.annotate(name, (x, y), fontsize=9, color=colour)  # no free position


def add_legend(axes: Any) -> None:
    """Add a legend to the right of the plot, if it has entries."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
