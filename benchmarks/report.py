"""Writes the results of a run as one HTML page without scripts and external resources."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path

from issun.benchmarks.distances import DECODE, Comparison
from issun.benchmarks.errors import one_line
from issun.benchmarks.measured import EngineResult, Results, speed, write_atomically
from issun.benchmarks.publish_distances import README_TEXTS
from issun.benchmarks.publish_distances import plots as distance_plots
from issun.benchmarks.scatter import Point, linear_axis, scatter, tick_step
from issun.benchmarks.sizes import gigabytes
from issun.benchmarks.tables import heading, largest, markdown

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #fdfdfc; --line: #d9d6d0; --dim: #666 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e6e3; --back: #17181a; --line: #3a3c40; --dim: #a5a3a0 }
}
body { font: 16px/1.6 system-ui, "Hiragino Sans", "Noto Sans CJK JP", "Yu Gothic", sans-serif;
  color: var(--text); background: var(--back); max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.7rem; line-height: 1.35 } h2 { margin-top: 2.5rem; font-size: 1.25rem }
.dim { color: var(--dim) } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: right }
td { white-space: nowrap } th:first-child, td:first-child { text-align: left }
th { vertical-align: bottom } tr.issun td { font-weight: 600 } td.failure { text-align: left;
  white-space: normal }
figure { margin: 1rem 0 2rem } figure img { width: 100%; height: auto } dt {
  font-weight: 600; margin-top: .6rem }
dd { margin-left: 1.2rem }
"""
_INTERLEAVED = (
    "Each engine converts the same checkpoint and runs in its own process. As many engines as fit "
    "into memory run the same test interleaved in time slices of {turn:g} s, so that all see the "
    "same machine; the time in which an engine is suspended does not count. Engines that do not "
    "fit run in other groups, at other times, in which the machine may be faster or slower; groups "
    "differ from round to round. Speeds are medians."
)
_SEPARATE = (
    "Each engine converts the same checkpoint and runs in its own process, one per round; every "
    "round runs all engines, in a different order. Speeds are medians."
)
_TITLE = "Memory and decode speed: higher and further left is better"
_MEMORY = "peak memory at the longest context measured, GB →"
_SPEED = "↑ decode after a 128-token prompt, tokens/s"
_COMMON = (
    "All engines get the same random token ids and the same number of threads, and decode greedily."
)
_HOW = (
    "Prefill is warm: the process has prefilled the same length once before; cold prefills are in "
    "the results file. Load times are medians: the first with the files not in the page cache, and "
    "later ones.",
    "Memory is measured in separate runs and summed over the process tree: the kernel's peak, and "
    "the anonymous part of the largest sample, which excludes clean file pages.",
    "The bandwidth used is the bytes that a token reads, all weights and the KV cache, relative to "
    "the machine's read bandwidth. Random weights change neither speed nor size.",
)


def write_report(results: Results, folder: Path, comparison: Comparison | None = None) -> Path:
    """Write `report.html` to `folder`; returns its path.

    A comparison with float32 adds its plots, with decode speeds from `results`.
    """
    plots = [memory_plot(results, _TITLE, _MEMORY, _SPEED)]
    if comparison:
        comparison.add_speeds(results)
        plots += distance_plots(comparison, README_TEXTS["README.md"]).values()
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    write_atomically(page, render(results, plots).encode())
    return page


def memory_plot(results: Results, title: str, x: str, y: str) -> str:
    """Peak memory against decode speed as SVG, for the engines that have both."""
    points = [
        Point(one_line(engine.label), memory.peak / 1e9, rate, engine.name.startswith("issun"))
        for engine in results.engines
        if (memory := largest(engine)) and (rate := speed(engine, DECODE))
    ]
    sizes, rates = [0.0, *(point.x for point in points)], [0.0, *(point.y for point in points)]
    # Room for the labels to the right of their points.
    across = linear_axis(x, sizes, tick_step(max(1, *sizes), 10), room=1.15)
    up = linear_axis(y, rates, tick_step(max(1, *rates)), room=1.04)
    return scatter(points, title=title, x=across, y=up)


def render(results: Results, plots: list[str]) -> str:
    """The HTML page; `plots` are SVG texts."""
    japanese, english = headline(results)
    shape = results.shape
    about = (
        f"{results.parameters / 1e9:.2f} B parameters, {shape['n_layer']} layers, width "
        f"{shape['n_embd']:,}, context {shape['n_positions']:,}; issun {results.issun}, commit "
        f"{results.commit or '(none)'}; {results.machine.system}, "
        f"{gigabytes(results.machine.memory_bytes)} of memory."
    )
    # As images, since the styles of one SVG would apply to the whole page.
    drawn = "".join(
        f'<figure><img alt="{_title(svg)}" src="data:image/svg+xml;base64,'
        f'{b64encode(svg.encode()).decode()}"></figure>'
        for svg in plots
    )
    return (
        '<!doctype html>\n<html lang="ja"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>issun bench</title><style>{_STYLE}</style></head><body>"
        f'<h1>{escape(japanese)}</h1><p lang="en">{escape(english)}</p>'
        f'<div lang="en"><p class="dim">{escape(heading(results))}<br>{escape(about)}</p>'
        f'<div class="wide">{_table(results)}</div>{drawn}'
        f"<h2>How it was measured</h2>{_how(results)}"
        f"<h2>Engines and their settings</h2><dl>{_settings(results)}</dl></div></body></html>\n"
    )


def _title(svg: str) -> str:
    """The title of a plot, which is escaped already."""
    return svg.partition("<title>")[2].partition("</title>")[0]


def _how(results: Results) -> str:
    method = _INTERLEAVED.format(turn=results.turn) if results.turn else _SEPARATE
    return "".join(f"<p>{escape(text)}</p>" for text in (f"{method} {_COMMON}", *_HOW))


def headline(results: Results) -> tuple[str, str]:
    """The comparison of issun with the float32 baseline, in Japanese and English."""
    complete = [e for e in results.engines if largest(e) and speed(e, "decode-128")]
    base = next((e for e in complete if e.name == "torch-float32"), None)
    ours = [e for e in complete if e.name.startswith("issun-int")]
    ours = [e for e in ours if base and e.threads == base.threads]
    memory = largest(base) if base else None
    rate = speed(base, "decode-128") if base else None
    if not ours or memory is None or not rate:
        return "issun ベンチマーク", "issun bench: speed and memory, as measured."
    best = min(ours, key=_peak)
    less = memory.peak / _peak(best)
    faster = (speed(best, "decode-128") or 0) / rate
    return (
        f"{best.label}: メモリーは torch float32 の {1 / less:.0%}、生成速度は {faster:.1f} 倍",
        f"{best.label} needs {gigabytes(_peak(best))} of memory, torch float32 "
        f"{gigabytes(memory.peak)} ({less:.1f} times as much); {best.label} decodes {faster:.1f} "
        "times as fast.",
    )


def _peak(engine: EngineResult) -> int:
    memory = largest(engine)
    return memory.peak if memory else 0


def _table(results: Results) -> str:
    """The Markdown table as HTML."""
    header, _, *rows = [line for line in markdown(results).splitlines() if line.startswith("|")]
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in _cells(header))
    body = ""
    for line, engine in zip(rows, results.engines, strict=True):
        kind = ' class="issun"' if engine.name.startswith("issun") else ""
        if engine.status != "measured":
            failure = f"{engine.status}: {engine.reason}"
            columns = len(_cells(header)) - 1
            body += (
                f"<tr{kind}><td>{escape(engine.label)}</td>"
                f'<td class="failure" colspan="{columns}">{escape(failure)}</td></tr>'
            )
            continue
        body += f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(line))}</tr>"
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _cells(line: str) -> list[str]:
    """The cells of a row, with the bars that `markdown` escapes."""
    cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _settings(results: Results) -> str:
    shown = {}
    for engine in results.engines:
        versions = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
        failure = f" {engine.status}: {engine.reason}." if engine.status != "measured" else ""
        shown[engine.label] = f"{engine.settings} {versions}.{failure}"
    return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in shown.items())
