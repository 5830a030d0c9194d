"""Writes the results of a run as one HTML page without scripts and external resources."""

from __future__ import annotations

from html import escape
from pathlib import Path

from issun.benchmarks.distance_plots import PLOTS as DISTANCE_PLOTS
from issun.benchmarks.distances import Comparison
from issun.benchmarks.measured import EngineResult, Results, speed
from issun.benchmarks.plots import PLOTS, save_plots
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
figure { margin: 1rem 0 2rem; background: #fff; color: #1b1b1b; border: 1px solid var(--line);
  border-radius: 8px; padding: 1rem } figure svg { width: 100%; height: auto }
figcaption { color: #555; font-size: .9rem } dt { font-weight: 600; margin-top: .6rem }
dd { margin-left: 1.2rem }
"""
_INTERLEAVED = (
    "Each engine converts the same checkpoint and runs in its own process. As many engines as fit "
    "into memory run the same test interleaved in time slices of {turn:g} s, so that all see the "
    "same machine; the time in which an engine is suspended does not count. Engines that do not "
    "fit run in other groups, at other times; differences in the machine's speed between groups "
    "are estimated from engines in several groups and removed (least squares). Speeds are "
    "geometric means of the medians of an engine's processes."
)
_SEPARATE = (
    "Each engine converts the same checkpoint and runs in its own process, one per round; every "
    "round runs all engines, in a different order. Speeds are medians."
)
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
    """Write the plots and `report.html` to `folder`; returns the path of the page.

    A comparison with float32 adds its plots, with decode speeds from `results`. Raises BenchError
    if matplotlib is missing.
    """
    figures = save_plots(results, PLOTS, folder / "plots")
    if comparison:
        comparison.add_speeds(results)
        figures += save_plots(comparison, DISTANCE_PLOTS, folder / "plots")
    page = folder / "report.html"
    page.write_text(render(results, figures), encoding="utf-8")
    return page


def render(results: Results, figures: list[tuple[str, str]]) -> str:
    """The HTML page; `figures` are SVG texts with captions."""
    japanese, english = headline(results)
    shape = results.shape
    about = (
        f"{results.parameters / 1e9:.2f} B parameters, {shape['n_layer']} layers, width "
        f"{shape['n_embd']:,}, context {shape['n_positions']:,}; issun {results.issun}, commit "
        f"{results.commit or '(none)'}; {results.machine.system}, "
        f"{gigabytes(results.machine.memory_bytes)} of memory."
    )
    drawn = "".join(
        f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        for svg, caption in figures
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
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _settings(results: Results) -> str:
    shown = {}
    for engine in results.engines:
        versions = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
        failure = f" {engine.status}: {engine.reason}." if engine.status != "measured" else ""
        shown[engine.label] = f"{engine.settings} {versions}.{failure}"
    return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in shown.items())
