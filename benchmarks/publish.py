"""`make figures`: generates plots and tables for README and docs from the committed results.

`benchmarks/results/1b.json.gz` is the only source of the plots of speed and memory, of the tables
between markers in Markdown files, and of `published.json`, which `issun bench fit` reads;
`benchmarks/results/fidelity.json` is that of the plots of fidelity, and
`benchmarks/results/fidelity-speed.json.gz` has the decode speeds of the same models.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from issun.benchmarks.distances import DECODE, read_comparison
from issun.benchmarks.measured import (
    EngineResult,
    Memory,
    Results,
    read_results,
    speed,
    stats,
    write_results,
)
from issun.benchmarks.publish_distances import README_TEXTS, block, distances_table, plots
from issun.benchmarks.report import memory_plot
from issun.benchmarks.sizes import gigabytes
from issun.benchmarks.tables import largest, markdown

SOURCE = Path("benchmarks/results/1b.json.gz")
SUMMARY = Path("benchmarks/published.json")
MEASUREMENTS = Path("docs/measurements.md")  # the full table, between <!-- results --> markers
COMPARISON = Path("benchmarks/results/fidelity.json")
SPEEDS = Path("benchmarks/results/fidelity-speed.json.gz")  # of the same models, if measured
PREFILL = "prefill-512"


class Texts(NamedTuple):
    """The texts of plot and table in one language."""

    plot: str  # path of the plot
    title: str
    x: str
    y: str
    columns: tuple[str, ...]
    caption: str
    seconds: str
    extension: str  # of the CPU


READMES = {
    "README.md": Texts(
        "docs/images/memory-speed.svg",
        "A 1.3 B model on two CPU cores: higher and further left is better",
        "peak memory with 1,000 tokens of context, GB →",
        "↑ decode after a 128-token prompt, tokens/s",
        ("engine", "on disk", "peak memory", "load", "prefill, tokens/s", "decode, tokens/s"),
        "Measured on {date}: {cpu}{extension}, {threads} threads, {memory} of memory, {versions}, "
        "Python {python}. The 1.3 B shape with random weights. On disk: for issun, the bundle "
        "and its packed weights. Peak memory with 1,000 tokens of context; load is the median of "
        "later loads; prefill of a 512-token prompt; decode after a 128-token prompt. "
        "[All measurements](docs/measurements.md)",
        "{:.1f} s",
        " ({})",
    ),
    "README.ja.md": Texts(
        "docs/images/memory-speed.ja.svg",
        "CPU 2 コアで動く 13 億パラメーターのモデル: 左上ほど良い",
        "最大メモリー （コンテキスト 1,000 トークン）、GB →",
        "↑ 生成速度（128 トークンのプロンプトの後）、トークン/秒",
        (
            "エンジン",
            "ディスク",
            "最大メモリー",
            "読み込み",
            "プロンプト処理（トークン/秒）",
            "生成（トークン/秒）",
        ),
        "{date} 測定: {cpu}{extension}、{threads} スレッド、メモリー {memory}、{versions}、"
        "Python {python}。13 億パラメーターの形に乱数の重みを入れたモデル。issun のディスクは、"
        "バンドルと、CPU 用にパッキングした重みの合計。"
        "最大メモリーはコンテキストが 1,000 トークンのとき、"
        "読み込みは 2 回目以降の中央値、プロンプト処理は 512 トークン、"
        "生成は 128 トークンのプロンプトの後。[すべての測定](docs/measurements.md)",
        "{:.1f} 秒",
        "（{}）",
    ),
}


def figures(root: Path) -> dict[Path, str]:
    """The contents of all generated text files under `root`, by path.

    A README that does not exist is left out. Exits if a file has no markers.
    """
    results = read_results(root / SOURCE)
    contents = {}
    for name, texts in READMES.items():
        contents[root / texts.plot] = memory_plot(results, texts.title, texts.x, texts.y)
        if (root / name).exists():
            figure = f"![{texts.title}]({texts.plot})\n\n{table(results, texts)}"
            contents[root / name] = _between(_read(root / name), name, "figures", figure)
    comparison = read_comparison(root / COMPARISON)
    if (root / SPEEDS).exists():
        comparison.add_speeds(read_results(root / SPEEDS))
    for name, shown in README_TEXTS.items():
        contents |= {root / path: svg for path, svg in plots(comparison, shown).items()}
        if (root / name).exists():
            text = contents[root / name]
            contents[root / name] = _between(text, name, "fidelity", block(comparison, shown))
    page = root / MEASUREMENTS
    text = _between(_read(page), MEASUREMENTS, "results", markdown(results))
    contents[page] = _between(text, MEASUREMENTS, "fidelity", distances_table(comparison))
    return contents


def table(results: Results, texts: Texts) -> str:
    """A Markdown table of six columns, issun in bold, and a caption with date and machine."""
    lines = [_row(texts.columns), "|---" + "|--:" * (len(texts.columns) - 1) + "|"]
    for engine in results.engines:
        if engine.status == "measured":
            lines.append(_row(_cells(engine, texts)))
    return "\n".join([*lines, "", _caption(results, texts)])


def summary(results: Results) -> Results:
    """The results for `issun bench fit`: peaks by context, and the decode speed as one sample."""
    engines = []
    for engine in results.engines:
        memory = {n: Memory(peak=found.peak) for n, found in engine.memory.items()}
        rate = speed(engine, DECODE)
        samples = {DECODE: [1 / rate]} if rate else {}
        engines.append(
            EngineResult(
                name=engine.name,
                label=engine.label,
                threads=engine.threads,
                status=engine.status,
                rounds=engine.rounds,
                memory=memory,
                samples=samples,
            )
        )
    return msgspec.structs.replace(results, bandwidth={}, byte_energy={}, engines=engines)


def _cells(engine: EngineResult, texts: Texts) -> list[str]:
    memory, loads = largest(engine), engine.samples.get("load")
    prefill, decode = speed(engine, PREFILL), speed(engine, DECODE)
    return [
        f"**{engine.label}**" if engine.name.startswith("issun") else engine.label,
        gigabytes(engine.disk_bytes) if engine.disk_bytes else "-",
        gigabytes(memory.peak) if memory else "-",
        texts.seconds.format(stats(loads).median) if loads else "-",
        f"{prefill:,.0f}" if prefill else "-",
        f"{decode:,.1f}" if decode else "-",
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _caption(results: Results, texts: Texts) -> str:
    machine = results.machine
    versions = {name: v for engine in results.engines for name, v in engine.versions.items()}
    vnni = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI"}
    found = next((text for flag, text in vnni.items() if flag in machine.flags), "")
    return texts.caption.format(
        date=results.date[:10],
        cpu=machine.cpu,
        extension=texts.extension.format(found) if found else "",
        threads=results.engines[0].threads,
        memory=f"{machine.memory_bytes / 1e9:.0f} GB",
        versions=f"onnxruntime {versions['onnxruntime']}",
        python=machine.python,
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _between(text: str, path: str | Path, name: str, block: str) -> str:
    """The file's `text` with `block` between `<!-- name -->` and `<!-- /name -->`."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    found = re.search(f"{re.escape(first)}.*{re.escape(last)}", text, re.DOTALL)
    if not found:
        raise SystemExit(f"{path} has no line {first} followed by {last}.")
    return f"{text[: found.start()]}{first}\n{block}\n{last}{text[found.end() :]}"


def main() -> None:
    """Write all generated files of a checkout, and print those that changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="the checkout")
    root = parser.parse_args().root
    for path, text in figures(root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path)
    write_results(root / SUMMARY, summary(read_results(root / SOURCE)))


if __name__ == "__main__":
    main()
