"""How a calibration text generalises: fits int4 on each text, and measures each fit on all texts.

`python -m issun.benchmarks.calibration_texts CHECKPOINT --fit FILE ... --measure FILE ...`

A row is a text that int4 was fitted on with GPTQ; the first is the shipped one. A column is a text
to measure: the mean KL divergence from float32 in nats. No text should be in both lists.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from issun.benchmarks.divergence import Logits, mean_kl, score_windows
from issun.export import ExportOptions, export
from issun.runtime import Model
from issun.runtime.files import as_utf8

SHIPPED = "shipped"


def divergences(
    checkpoint: Path, fit: Sequence[Path], measure: Mapping[str, str], work: Path
) -> dict[str, dict[str, float]]:
    """Text to fit -> text to measure -> KL divergence; bundles are written to the folder `work`."""
    export(checkpoint, work / "float32", ExportOptions(precision="float32"))
    reference = _logits(work / "float32", measure)
    found = {}
    for text in (None, *fit):
        name = text.name if text else SHIPPED
        options = ExportOptions(precision="int4", gptq=True, calibrate=text, force=True)
        export(checkpoint, work / "int4", options)
        logits = _logits(work / "int4", measure)
        found[name] = {at: mean_kl(reference[at], logits[at]) for at in measure}
    return found


def _logits(bundle: Path, measure: Mapping[str, str]) -> dict[str, Logits]:
    with Model.load(bundle, keep_packed=False) as model:
        return {name: score_windows(model, model.encode(text)) for name, text in measure.items()}


def main() -> None:
    """Fit, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="calibration_texts")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--fit", type=Path, nargs="*", default=[])
    parser.add_argument("--measure", type=Path, nargs="+", required=True)
    parser.add_argument("--bytes", type=int, default=20_000, help="of each text to measure")
    args = parser.parse_args()
    measure = {
        path.name: as_utf8(path.read_bytes())[: args.bytes].decode("utf-8", "ignore")
        for path in args.measure
    }
    with tempfile.TemporaryDirectory() as folder:
        found = divergences(args.checkpoint, args.fit, measure, Path(folder))
    print(f"| fitted on | {' | '.join(measure)} |")
    print(f"|---|{'--:|' * len(measure)}")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{kl:.5f}' for kl in row.values())} |")


if __name__ == "__main__":
    main()
