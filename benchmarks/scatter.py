"""Draws the README's plots as SVG, one point per engine.

It does not use matplotlib, so that the output does not depend on its version, and so that the file
has colours for both light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import product
from typing import NamedTuple

_WIDTH, _HEIGHT = 760, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 62, 50  # margins around the axes
_CHARACTER = 6.9  # the average advance of a character at 12.5 px, rounded up
_BOLD = 7.8
_LINE = 14  # the height of a label
_STYLE = """
.page{fill:#fff;stroke:#d0d7de}.text{fill:#1f2328}.dim{fill:#59636e}.grid{stroke:#e4e8ec}
.lead{stroke:#9aa4ae}.ours{fill:#bc4c00}.peer{fill:#59636e}.label{font-size:12.5px}
@media (prefers-color-scheme:dark){.page{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}
.dim{fill:#9198a1}.grid{stroke:#262c36}.lead{stroke:#656c76}.ours{fill:#f0883e}.peer{fill:#9198a1}}
"""


class Point(NamedTuple):
    """An engine: its position on both axes, and whether it is issun."""

    label: str
    x: float
    y: float
    ours: bool


class Axis(NamedTuple):
    """An axis with its title and marked values, of which the first and the last are its ends."""

    title: str
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """The position of a value between both ends, from 0 to 1."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


def linear_axis(
    title: str, values: Sequence[float], step: int, *, room: float = 1, low: int = 0
) -> Axis:
    """From `low` to the first multiple of `step` above `room` times the largest value."""
    count = int(room * max(values) / step) + 1
    return Axis(title, tuple(range(low, step * count + 1, step)))


def tick_step(largest: float, most: int = 8) -> int:
    """The smallest of 1, 2 and 5 times powers of ten with at most `most` steps to `largest`."""
    decade = int(10 ** max(0, math.floor(math.log10(largest / most))))
    return next(
        step for step in (decade, 2 * decade, 5 * decade, 10 * decade) if step * most >= largest
    )


def log_axis(title: str, values: Sequence[float]) -> Axis:
    """With ticks at 1, 2 and 5 times powers of ten, from below all positive values to above."""
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    first = max(tick for tick in ticks if tick <= low)
    last = min(tick for tick in ticks if tick > high)
    return Axis(title, tuple(tick for tick in ticks if first <= tick <= last), logarithmic=True)


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


class _Lead(NamedTuple):
    """From a point to its label."""

    x: float
    y: float
    end_x: float
    end_y: float

    def crosses(self, other: _Lead) -> bool:
        """Whether each line's ends are on both sides of the other one."""
        return all(
            a._side(b.x, b.y) * a._side(b.end_x, b.end_y) < 0
            for a, b in ((self, other), (other, self))
        )

    def _side(self, x: float, y: float) -> float:
        return (self.end_x - self.x) * (y - self.y) - (self.end_y - self.y) * (x - self.x)


_AXES = _Box(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM)


def scatter(points: list[Point], *, title: str, x: Axis, y: Axis) -> str:
    """The plot as SVG."""
    placed = [(_across(x, p.x), _up(y, p.y), p) for p in points]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"',
        f' font-family="system-ui,sans-serif"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x=".5" y=".5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="6"/>',
        _text(_LEFT - 40, 24, title, "text", extra=' font-size="16" font-weight="600"'),
        _text(_LEFT - 40, 43, y.title, "dim"),
        *_grid(x, y),
        _text(_AXES.right, _HEIGHT - 12, x.title, "dim", anchor="end"),
        *_labels(placed),
        *(
            f'<circle class="{_kind(p)}" cx="{across}" cy="{up}" r="5.5"/>'
            for across, up, p in placed
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _across(x: Axis, value: float) -> float:
    return round(_LEFT + x.share(value) * (_AXES.right - _LEFT), 1)


def _up(y: Axis, value: float) -> float:
    return round(_AXES.bottom - y.share(value) * (_AXES.bottom - _TOP), 1)


def _kind(point: Point) -> str:
    return "ours" if point.ours else "peer"


def _text(
    x: float, y: float, text: str, kind: str, *, anchor: str = "start", extra: str = ""
) -> str:
    return (
        f'<text class="label {kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{extra}>'
        f"{escape(text)}</text>"
    )


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for tick in y.ticks:
        height = _up(y, tick)
        parts.append(
            f'<path class="grid" d="M{_LEFT} {height:g}H{_AXES.right:g}"/>'
            + _text(_LEFT - 8, height + 4, f"{tick:g}", "dim", anchor="end")
        )
    for tick in x.ticks:
        parts.append(
            _text(_across(x, tick), _AXES.bottom + 18, f"{tick:g}", "dim", anchor="middle")
        )
    return parts


def _labels(placed: list[tuple[float, float, Point]]) -> Iterator[str]:
    """A label next to each point, at the nearest position that overlaps and crosses nothing."""
    taken = [_Box(x - 7, y - 7, x + 7, y + 7) for x, y, _ in placed]
    leads: list[_Lead] = []
    for x, y, point in sorted(placed, key=lambda one: (one[1], one[0])):
        width = (_BOLD if point.ours else _CHARACTER) * len(point.label)
        for distance, side in product((0, 1, -1, 2, -2, 3, -3, 4, -4), (1, -1)):
            near = x + side * (11 if not distance else 16)
            middle = y + distance * _LINE
            left = near if side > 0 else near - width
            box = _Box(left, middle - _LINE / 2, left + width, middle + _LINE / 2)
            inside = box.left >= _LEFT and box.right <= _AXES.right
            lead = _Lead(x, y, near - 3 * side, middle)
            free = not any(map(box.overlaps, taken)) and not any(map(lead.crosses, leads))
            if inside and box.bottom <= _AXES.bottom and free:
                break
        taken.append(box)
        if distance:
            leads.append(lead)
            yield f'<path class="lead" d="M{x:g} {y:g}L{lead.end_x:g} {middle:g}"/>'
        anchor = "start" if side > 0 else "end"
        weight = ' font-weight="600"' if point.ours else ""
        yield _text(near, middle + 4, point.label, "text", anchor=anchor, extra=weight)
