"""Draws what a terminal showed, moment by moment, as one SVG file that plays in a loop."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

CELL, LINE, FONT = 8.4, 21, 14  # width of a cell, height of a line and size of the letters
PAD, BAR, CAPTION = 14, 30, 30  # around the text, above it for the title, below it for captions
COLORS = {
    "default": "#d8dee9",
    "black": "#3b4252",
    "red": "#bf616a",
    "green": "#a3be8c",
    "brown": "#ebcb8b",
    "blue": "#81a1c1",
    "magenta": "#b48ead",
    "cyan": "#88c0d0",
    "white": "#e5e9f0",
    "brightblack": "#7b88a1",
}
_STYLE = """
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",
"Noto Sans Mono CJK JP","Noto Sans CJK JP","Hiragino Sans","Yu Gothic",monospace;white-space:pre}
.w{font-size:16px}
.h{font:13px system-ui,"Segoe UI",Helvetica,Arial,sans-serif;fill:#aab4c8}
.o{opacity:0}
@media(prefers-reduced-motion:reduce){*{animation:none!important}}
"""


class Run(NamedTuple):
    """Characters beside each other that look alike; `cells` is how many columns they take."""

    column: int
    cells: int
    text: str
    color: str
    bold: bool


class Moment(NamedTuple):
    """What is on the screen from `time` on: lines of runs, the cursor and the caption."""

    time: float
    lines: tuple[tuple[Run, ...], ...]
    cursor: tuple[int, int] | None  # column, row
    caption: str


class _Shown(NamedTuple):
    start: float
    end: float
    drawn: str


def draw(moments: Sequence[Moment], *, columns: int, end: float, title: str) -> str:
    """The file; `end` is when it begins again. Without animation the last moment shows."""
    rows = len(moments[0].lines)
    width, height = columns * CELL + 2 * PAD, BAR + rows * LINE + PAD + CAPTION
    shown = [
        *_cursors(moments, end),
        *(each for row in range(rows) for each in _row(moments, row, end)),
        *_captions(moments, end, height),
    ]
    times = sorted({(each.start, each.end) for each in shown})
    names = {pair: f"k{number}" for number, pair in enumerate(times)}
    rules = [_rule(name, *pair, end) for pair, name in names.items()]
    body = []
    for pair, group in groupby(sorted(shown), key=lambda each: (each.start, each.end)):
        hidden = " o" if pair[1] < end else ""
        drawn = "".join(each.drawn for each in group)
        body.append(f'<g class="{names[pair]}{hidden}">{drawn}</g>')
    dots = "".join(f'<circle cx="{18 + 18 * i}" cy="15" r="5" fill="#4c566a"/>' for i in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{''.join(rules)}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#242933"/>{dots}'
        f'<text class="h" x="{width / 2:.0f}" y="19" text-anchor="middle">{escape(title)}</text>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _rule(name: str, start: float, until: float, end: float) -> str:
    steps = "0%{opacity:0}" if start else ""
    steps += f"{100 * start / end:.2f}%{{opacity:1}}"
    steps += f"{100 * until / end:.2f}%{{opacity:0}}" if until < end else ""
    return f"@keyframes {name}{{{steps}}}.{name}{{animation:{name} {end:.1f}s step-end infinite}}\n"


def _spans(values: Sequence[tuple[float, object]], end: float) -> list[tuple[float, float, object]]:
    """Each value with the time from which and until which it holds."""
    found = []
    for _, group in groupby(values, key=lambda pair: pair[1]):
        time, value = next(group)
        found.append((time, value))
    ends = [time for time, _ in found[1:]] + [end]
    return [(time, until, value) for (time, value), until in zip(found, ends, strict=True)]


def _row(moments: Sequence[Moment], row: int, end: float) -> list[_Shown]:
    y = BAR + (row + 1) * LINE - 6
    spans = _spans([(each.time, each.lines[row]) for each in moments], end)
    return [_Shown(a, b, "".join(_text(run, y) for run in runs)) for a, b, runs in spans if runs]


def _text(run: Run, y: int) -> str:
    color = COLORS.get(run.color, f"#{run.color}")
    style = ' font-weight="bold"' if run.bold else ""
    style += ' class="w"' if run.cells > len(run.text) else ""
    return (
        f'<text x="{PAD + run.column * CELL:.1f}" y="{y}" fill="{color}"{style} '
        f'textLength="{run.cells * CELL:.1f}">{escape(run.text, quote=False)}</text>'
    )


def _cursors(moments: Sequence[Moment], end: float) -> list[_Shown]:
    shown = []
    for a, b, place in _spans([(each.time, each.cursor) for each in moments], end):
        if place is not None:
            x, y = PAD + place[0] * CELL, BAR + place[1] * LINE
            box = f'<rect x="{x:.1f}" y="{y}" width="{CELL}" height="{LINE - 1}" fill="#7b88a1"/>'
            shown.append(_Shown(a, b, box))
    return shown


def _captions(moments: Sequence[Moment], end: float, height: float) -> list[_Shown]:
    spans = _spans([(each.time, each.caption) for each in moments], end)
    text = '<text class="h" x="{x}" y="{y:.0f}">{caption}</text>'
    return [
        _Shown(a, b, text.format(x=PAD, y=height - 13, caption=escape(str(caption), quote=False)))
        for a, b, caption in spans
        if caption
    ]
