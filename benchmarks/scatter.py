"""Draws the README's plot as SVG: peak memory against decode speed, one point per engine.

It does not use matplotlib, so that the output does not depend on its version, and so that the file
has colours for both light and dark pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from itertools import product
from typing import NamedTuple

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 62, 50  # margins around the axes
_CHARACTER = 6.9  # the average advance of a character at 12.5 px, rounded up
_LINE = 14  # the height of a label
_STYLE = """
.page{fill:#fff;stroke:#d0d7de}.text{fill:#1f2328}.dim{fill:#59636e}.grid{stroke:#e4e8ec}
.lead{stroke:#9aa4ae}.ours{fill:#bc4c00}.peer{fill:#59636e}.label{font-size:12.5px}
@media (prefers-color-scheme:dark){.page{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}
.dim{fill:#9198a1}.grid{stroke:#262c36}.lead{stroke:#656c76}.ours{fill:#f0883e}.peer{fill:#9198a1}}
"""


class Point(NamedTuple):
    """An engine: peak memory in GB, decode speed in tokens per second, and whether it is issun."""

    label: str
    memory: float
    speed: float
    ours: bool


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


_AXES = _Box(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM)


def scatter(points: list[Point], *, title: str, x: str, y: str) -> str:
    """The plot as SVG; `x` and `y` are the titles of the axes, which both start at zero."""
    # Leave room for the labels to the right of their points.
    right = _end(1.15 * max(p.memory for p in points), 1)
    top = _end(1.04 * max(p.speed for p in points), 10)

    def place(memory: float, speed: float) -> tuple[float, float]:
        across = _LEFT + memory / right * (_AXES.right - _LEFT)
        return round(across, 1), round(_AXES.bottom - speed / top * (_AXES.bottom - _TOP), 1)

    placed = [(*place(p.memory, p.speed), p) for p in points]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"',
        f' font-family="system-ui,sans-serif"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x=".5" y=".5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="6"/>',
        _text(_LEFT - 40, 24, title, "text", extra=' font-size="16" font-weight="600"'),
        _text(_LEFT - 40, 43, y, "dim"),
        *_grid(right, top, place),
        _text(_AXES.right, _HEIGHT - 12, x, "dim", anchor="end"),
        *_labels(placed),
        *(
            f'<circle class="{_kind(p)}" cx="{across}" cy="{up}" r="5.5"/>'
            for across, up, p in placed
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _end(largest: float, step: int) -> int:
    """The first multiple of `step` above the largest value."""
    return step * (int(largest / step) + 1)


def _kind(point: Point) -> str:
    return "ours" if point.ours else "peer"


def _text(
    x: float, y: float, text: str, kind: str, *, anchor: str = "start", extra: str = ""
) -> str:
    return (
        f'<text class="label {kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{extra}>'
        f"{escape(text)}</text>"
    )


def _grid(right: int, top: int, place: Callable[[float, float], tuple[float, float]]) -> list[str]:
    parts = []
    for speed in range(0, top + 1, 10):
        height = place(0, speed)[1]
        parts.append(
            f'<path class="grid" d="M{_LEFT} {height:g}H{_AXES.right:g}"/>'
            + _text(_LEFT - 8, height + 4, str(speed), "dim", anchor="end")
        )
    for memory in range(right + 1):
        across = place(memory, 0)[0]
        parts.append(_text(across, _AXES.bottom + 18, str(memory), "dim", anchor="middle"))
    return parts


def _labels(placed: list[tuple[float, float, Point]]) -> Iterator[str]:
    """A label next to each point, at the nearest position that overlaps nothing."""
    taken = [_Box(x - 7, y - 7, x + 7, y + 7) for x, y, _ in placed]
    for x, y, point in sorted(placed, key=lambda one: (one[1], one[0])):
        width = _CHARACTER * len(point.label)
        for distance, side in product((0, 1, -1, 2, -2, 3, -3, 4, -4), (1, -1)):
            near = x + side * (11 if not distance else 16)
            middle = y + distance * _LINE
            left = near if side > 0 else near - width
            box = _Box(left, middle - _LINE / 2, left + width, middle + _LINE / 2)
            inside = box.left >= _LEFT and box.right <= _AXES.right
            if inside and box.bottom <= _AXES.bottom and not any(map(box.overlaps, taken)):
                break
        taken.append(box)
        if distance:
            yield f'<path class="lead" d="M{x:g} {y:g}L{near - 3 * side:g} {middle:g}"/>'
        anchor = "start" if side > 0 else "end"
        weight = ' font-weight="600"' if point.ours else ""
        yield _text(near, middle + 4, point.label, "text", anchor=anchor, extra=weight)
