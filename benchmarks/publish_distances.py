"""The README's plots of the distance from float32, from the stored comparison."""

from __future__ import annotations

from typing import NamedTuple

from issun.benchmarks.distances import Comparison
from issun.benchmarks.scatter import Point, linear_axis, log_axis, scatter, tick_step

_MEGABYTES = 2  # between two ticks


class Texts(NamedTuple):
    """The texts of both plots in one language; each plot has a path and a title."""

    by_size: tuple[str, str]
    by_speed: tuple[str, str]
    size: str
    speed: str
    kl: str
    caption: str
    speeds: str


README_TEXTS = {
    "README.md": Texts(
        ("docs/images/kl-size.svg", "Fidelity and size: lower and further left is better"),
        ("docs/images/kl-speed.svg", "Fidelity and speed: lower and further right is better"),
        "MB of network and weights →",
        "decode after a 128-token prompt, tokens/s →",
        "↑ KL divergence from float32, nats",
        "Measured on {date} with the trained checkpoint {checkpoint}, which is small, on "
        "{tokens:,} tokens of {text} in windows of {window}: {cpu}. Importance matrices "
        "(imatrix) and other fits: {calibration}. [All four texts and the "
        "method](docs/measurements.md)",
        " Speeds: {speeds}.",
    ),
    "README.ja.md": Texts(
        ("docs/images/kl-size.ja.svg", "忠実さとサイズ: 左下ほど良い"),
        ("docs/images/kl-speed.ja.svg", "忠実さと速度: 右下ほど良い"),
        "ネットワークと重みのサイズ、MB →",
        "生成速度（128 トークンのプロンプトの後）、トークン/秒 →",
        "↑ float32 からの KL ダイバージェンス、nat",
        "{date} 測定: 小さな学習済みチェックポイント {checkpoint}、{text} の {tokens:,} トークン"
        "（{window} トークンずつ）、{cpu}。imatrix などの調整に使った文章: {calibration}。"
        "[4 種類の文章での結果と方法](docs/measurements.md)",
        " 速度: {speeds}。",
    ),
}


def plots(found: Comparison, texts: Texts) -> dict[str, str]:
    """The plots as SVG by path; the one with speeds only if some are known."""
    sizes = [
        Point(point.label, point.size / 1e6, point.distances[0].kl, point.ours)
        for point in found.measured
    ]
    speeds = [
        Point(point.label, point.decode, point.distances[0].kl, point.ours)
        for point in found.measured
        if point.decode
    ]
    path, title = texts.by_size
    lowest = int(min(point.x for point in sizes)) // _MEGABYTES * _MEGABYTES
    x = linear_axis(texts.size, [p.x for p in sizes], _MEGABYTES, room=1.1, low=lowest)
    y = log_axis(texts.kl, [p.y for p in sizes])
    drawn = {path: scatter(sizes, title=title, x=x, y=y)}
    if speeds:
        path, title = texts.by_speed
        rates = [point.x for point in speeds]
        x = linear_axis(texts.speed, rates, tick_step(max(rates)), room=1.15)
        y = log_axis(texts.kl, [p.y for p in speeds])
        drawn[path] = scatter(speeds, title=title, x=x, y=y)
    return drawn


def block(found: Comparison, texts: Texts) -> str:
    """The plots and a caption with date, machine and texts, as Markdown."""
    titles = dict([texts.by_size, texts.by_speed])
    images = [f"![{titles[path]}]({path})" for path in plots(found, texts)]
    caption = texts.caption.format(
        date=found.date[:10],
        checkpoint=found.checkpoint,
        tokens=found.texts[0].tokens,
        text=found.texts[0].name,
        window=found.window,
        cpu=found.machine.cpu,
        calibration=found.calibration,
    )
    if found.speeds:
        caption += texts.speeds.format(speeds=found.speeds)
    return f"{' '.join(images)}\n\n{caption}"


def distances_table(found: Comparison) -> str:
    """A Markdown table of all points and texts, with KL divergence and share of equal tops."""
    cells = ["engine", "MB", *(text.name for text in found.texts), "types of matrices"]
    rows = [cells, ["---", "--:", *["--:"] * len(found.texts), "---"]]
    for point in found.measured:
        shown = [f"{one.kl:.5f}, {one.agreement:.1%}" for one in point.distances]
        label = f"**{point.label}**" if point.ours else point.label
        rows.append([label, f"{point.size / 1e6:.1f}", *shown, point.types])
    failed = [f"{p.label}: {p.status}: {p.reason}." for p in found.points if p.status != "measured"]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, *(["", *failed] if failed else [])])
