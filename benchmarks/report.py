"""One page with all that a run found: it stands alone, without scripts and outside addresses."""

from __future__ import annotations

from html import escape
from pathlib import Path

from issun.benchmarks.measured import EngineResult, Results, speed
from issun.benchmarks.plots import save_plots
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
th { vertical-align: bottom } tr.issun td { font-weight: 600 } td.told { text-align: left;
  white-space: normal }
figure { margin: 1rem 0 2rem; background: #fff; color: #1b1b1b; border: 1px solid var(--line);
  border-radius: 8px; padding: 1rem } figure svg { width: 100%; height: auto }
figcaption { color: #555; font-size: .9rem } dt { font-weight: 600; margin-top: .6rem }
dd { margin-left: 1.2rem }
"""
_TOGETHER = (
    "Each engine converts the same checkpoint and runs in a process of its own. As many as memory "
    "holds do the same test at the same time, each for {turn:g} s until the next one has its turn, "
    "so that all meet the same machine; the time for which one is stopped does not count. Those "
    "that did not fit met it at another time: how much slower all were then is taken out, as far "
    "as engines that were in several groups tell (least squares). Speeds are geometric means of "
    "the medians of an engine's processes."
)
_APART = (
    "Each engine converts the same checkpoint and runs in a process of its own, one process an "
    "engine and round; rounds are interleaved and begin with another engine each time. Speeds are "
    "medians."
)
_ALIKE = "All read the same random token ids with the same number of threads and decode greedily."
_HOW = (
    "A prefill is warm: the same length had been read once before in that process; the cold ones "
    "are in the results file. Load times are medians: with the files out of the page cache, and "
    "later ones.",
    "Memory is measured in runs apart from speed, summed over the process tree: the kernel's own "
    "peak, and at the largest sample the anonymous part, which is not clean file pages.",
    "The limit is the machine's read bandwidth over the bytes that a token reads: all weights and "
    "the cache. Weights are random where the checkpoint is; that changes neither speed nor size.",
)


def write_report(results: Results, folder: Path) -> Path:
    """Write the plots and `report.html` to `folder`, and give the page's path.

    Raises BenchError where matplotlib is missing.
    """
    figures = save_plots(results, folder / "plots")
    page = folder / "report.html"
    page.write_text(render(results, figures), encoding="utf-8")
    return page


def render(results: Results, figures: list[tuple[str, str]]) -> str:
    """The page's HTML; `figures` are SVG texts with their captions."""
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
    taken = _TOGETHER.format(turn=results.turn) if results.turn else _APART
    return "".join(f"<p>{escape(text)}</p>" for text in (f"{taken} {_ALIKE}", *_HOW))


def headline(results: Results) -> tuple[str, str]:
    """What the run says of issun beside the float32 baseline, in Japanese and English."""
    whole = [e for e in results.engines if largest(e) and speed(e, "decode-128")]
    base = next((e for e in whole if e.name == "torch-float32"), None)
    ours = [e for e in whole if e.name.startswith("issun-int")]
    ours = [e for e in ours if base and e.threads == base.threads]  # or threads would speed it up
    memory = largest(base) if base else None
    rate = speed(base, "decode-128") if base else None
    if not ours or memory is None or not rate:
        return "issun ベンチマーク", "issun bench: speed and memory, as measured."
    best = min(ours, key=_peak)
    less = memory.peak / _peak(best)
    faster = (speed(best, "decode-128") or 0) / rate
    return (
        f"{best.label}: メモリーは torch float32 の {1 / less:.0%}、生成速度は {faster:.1f} 倍",
        f"{best.label} takes {gigabytes(_peak(best))} where torch float32 takes "
        f"{gigabytes(memory.peak)} ({less:.1f} times as much), and decodes {faster:.1f} times as "
        "fast.",
    )


def _peak(engine: EngineResult) -> int:
    memory = largest(engine)
    return memory.peak if memory else 0


def _table(results: Results) -> str:
    """The README's table as HTML."""
    header, _, *rows = [line for line in markdown(results).splitlines() if line.startswith("|")]
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in _cells(header))
    body = ""
    for line, engine in zip(rows, results.engines, strict=True):
        kind = ' class="issun"' if engine.name.startswith("issun") else ""
        if engine.status != "measured":
            told = f"{engine.status}: {engine.reason}"
            body += (
                f"<tr{kind}><td>{escape(engine.label)}</td>"
                f'<td class="told" colspan="{len(_cells(header)) - 1}">{escape(told)}</td></tr>'
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
        told = f" {engine.status}: {engine.reason}." if engine.status != "measured" else ""
        shown[engine.label] = f"{engine.settings} {versions}.{told}"
    return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in shown.items())
