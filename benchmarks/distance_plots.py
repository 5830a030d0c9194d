"""Plots of the distance from float32 against size and against decode speed, with matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from issun.benchmarks.distances import Comparison, Point
from issun.benchmarks.figures import colour_for, label_points, make_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def kl_by_size(found: Comparison) -> Figure:
    """Bundles and engines as points; small and faithful is bottom left."""
    places = [(point.size / 1e6, point) for point in found.measured]
    return _draw(found, "KL divergence and size", "MB of network and weights", places)


def kl_by_speed(found: Comparison) -> Figure:
    """Those whose decode speed is known; fast and faithful is bottom right."""
    places = [(point.decode, point) for point in found.measured if point.decode]
    title = "KL divergence and decode speed"
    return _draw(found, title, "decode after 128 tokens, tokens/s", places)


def _draw(found: Comparison, title: str, x: str, places: list[tuple[float, Point]]) -> Figure:
    """The divergence is that on the first text."""
    figure, axes = make_axes(title, x, f"KL divergence on {found.texts[0].name}, nats", 6.4)
    shown = [(value, point.distances[0].kl, point) for value, point in places]
    for value, kl, point in shown:
        axes.scatter(value, kl, s=60, color=colour_for(point.name), zorder=3)
    if shown:
        axes.set_yscale("log")
        axes.margins(x=0.15, y=0.08)
    figure.draw_without_rendering()  # computes positions on the page
    labels = [
        (value, kl, p.label.replace("$", r"\$"), colour_for(p.name)) for value, kl, p in shown
    ]
    label_points(axes, labels)
    return figure


PLOTS: dict[str, tuple[Callable[[Comparison], Figure], str]] = {
    "kl-size": (kl_by_size, "Distance from float32 and size: bottom left is best."),
    "kl-speed": (kl_by_speed, "Distance from float32 and decode speed: bottom right is best."),
}
