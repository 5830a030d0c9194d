"""`issun bench fidelity --peers`: bundles and other engines in one table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from issun.benchmarks.engines.registry import PEERS
from issun.cli.extras import needs_extra
from issun.cli.float32 import float32_bundle, work_folder
from issun.cli.language import mark, note, printable, printable_json, show, tr
from issun.runtime.errors import ParameterError, check_choice, check_range
from issun.runtime.files import check_output
from issun.runtime.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from issun.benchmarks.distances import Comparison, Point

_NEEDS = mark('Benchmarks need {module}: pip install "issun[bench]"')


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOptions:
    """Options of a comparison with other engines."""

    engines: str = "all"  # or none, or names separated by commas
    window: int = 512  # tokens that are read together
    calibrate: Path | None = None  # text that other engines are fitted to; None: export's own
    speeds: Path | None = None  # results of `issun bench run`
    output: Path | None = None  # for the results, as JSON
    tokenizer: str | None = None  # a folder or hub id, if not the checkpoint's own
    trust: bool = False  # the bundles' graphs, as for `Model.load`
    work: Path | None = None  # for temporary files
    as_json: bool = False


def compare_with_peers(
    bundles: list[Path], against: Path, texts: list[tuple[str, str]], options: PeerOptions
) -> None:
    """Measure all bundles and engines, store the results in the output file, and print them."""
    if (against / MANIFEST_NAME).is_file():
        raise ParameterError("--peers needs the checkpoint: give it with --against.")
    check_range("window", options.window, Integral, 1, math.inf)
    output, calibration = options.output, options.calibrate
    if output:
        check_output(output)
    names = _engine_names(options.engines)
    folder = work_folder(options.work, bundles[0], against)
    with needs_extra(_NEEDS):
        from issun.benchmarks import distances, machine, measured, peers  # noqa: PLC0415
    run = measured.read_results(options.speeds) if options.speeds else None
    found = distances.Comparison(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        issun=version("issun"),
        commit=machine.commit(),
        machine=machine.this_machine(),
        checkpoint=against.resolve().name,
        window=options.window,
        calibration=calibration.name if calibration else "the text in the package",
    )
    with float32_bundle(against, folder, options.tokenizer) as (reference, _):
        request = peers.Request(
            reference=reference,
            checkpoint=against.resolve(),
            bundles=bundles,
            engines=names,
            texts=texts,
            window=options.window,
            calibration=calibration,
            trust=options.trust,
        )
        for _ in peers.measure(request, found, folder.resolve(), show):
            if run:
                found.add_speeds(run)
            if output:  # what was measured is kept when a later engine is interrupted
                distances.write_comparison(output, found)
    if options.as_json:
        print(printable_json(msgspec.json.format(msgspec.json.encode(found), indent=2).decode()))
    else:
        print(printable(table(found)))
    if output:
        note("The results are in {path}.", path=output)


def _engine_names(asked: str) -> tuple[str, ...]:
    if asked in ("all", "none"):
        return tuple(PEERS) if asked == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in names:
        check_choice("engines", name, PEERS)
    return names


def table(found: Comparison) -> str:
    """One row for each bundle and engine, the largest first, and one for each failure."""
    width = max(len(point.label) for point in found.points)
    lines = [
        tr("KL divergence from float32 in nats, and share of equal most likely tokens"),
        tr("windows of {window} tokens; importance matrices and other fits: {calibration}").format(
            window=found.window, calibration=found.calibration
        ),
    ]
    if found.speeds:
        lines.append(tr("decode after 128 tokens: {run}").format(run=found.speeds))
    for number, text in enumerate(found.texts, 1):
        lines.append(
            tr("text {number}: {name} ({tokens:,} tokens)").format(
                number=number, name=text.name, tokens=text.tokens
            )
        )
    numbers = "".join(f"{number:>9}{'':9}" for number in range(1, len(found.texts) + 1))
    unit = tr("tokens/s")
    speed = f"{unit:>10}" if found.speeds else ""
    lines += ["", f"{'':{width}}{'MB':>9}{numbers}{speed}".rstrip()]
    lines += [_row(point, width, speeds=bool(found.speeds)) for point in found.measured]
    lines += [
        f"{point.label:{width}}  {point.status}: {point.reason}"
        for point in found.points
        if point.status != "measured"
    ]
    return "\n".join(lines)


def _row(point: Point, width: int, *, speeds: bool) -> str:
    row = f"{point.label:{width}}{point.size / 1e6:9.2f}"
    row += "".join(f"{one.kl:10.5f}{one.agreement:8.2%}" for one in point.distances)
    if speeds:
        row += f"{point.decode:10.1f}" if point.decode else f"{'-':>10}"
    return f"{row}  {point.types}".rstrip()
