"""Measures how much the answers of `issun batch` depend on what is answered beside them.

`python -m issun.benchmarks.rounding BUNDLE [--rows 200] [--tokens 50] [--workers 2] [--slots 16]`
answers the same rows greedily with one worker of 16 slots, and with several of so many. Where two
answers differ, the first different tokens were almost equally likely; the gap is between their
logits.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from issun.cluster.batch import BatchOptions, run_batch
from issun.cluster.plan import MAX_SLOTS
from issun.export.calibrate import calibration_text

_BEGINNING = "以下は、ある文章の書き出しです。この続きを自然な日本語で書いてください。"


class Difference(NamedTuple):
    """How much two runs differ: the largest gap is in logits, the rounding in nats."""

    rows: int
    largest_gap: float
    rounding: float  # of the log-probabilities of equal tokens after equal tokens


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=MAX_SLOTS, help="of the several workers")
    args = parser.parse_args()
    rows = [
        {
            "custom_id": str(number),
            "url": "/v1/completions",
            "body": {"prompt": text, "max_tokens": args.tokens, "temperature": 0, "logprobs": 5},
        }
        for number, text in enumerate(prompts(args.rows))
    ]
    first = answers(args.bundle, rows, 1, MAX_SLOTS)
    found = compare(first, answers(args.bundle, rows, args.workers, args.slots))
    print(
        f"{found.rows} of {args.rows} answers differ between 1 worker of {MAX_SLOTS} slots and "
        f"{args.workers} workers of {args.slots}; the largest gap is {found.largest_gap:.2g} "
        f"logits, and log-probabilities differ by up to {found.rounding:.1g}"
    )


def prompts(number: int) -> list[str]:
    """Instructions that begin alike, as rows usually do, with parts of the calibration text."""
    found = [line[:20] for line in calibration_text().splitlines() if len(line) > 20]
    return [f"{_BEGINNING}{place}。{found[place % len(found)]}" for place in range(number)]


def answers(
    bundle: Path, rows: Sequence[dict[str, Any]], workers: int, slots: int
) -> list[dict[str, Any]]:
    """The log-probabilities of each row's answer."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "rows.jsonl", Path(folder) / "answers.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        options = BatchOptions(
            source=source, target=target, bundle=bundle, workers=workers, slots=slots
        )
        run_batch(options)
        lines = target.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["response"]["body"]["choices"][0]["logprobs"] for line in lines]


def compare(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> Difference:
    """Compare the answers of two runs, row by row."""
    gaps, roundings = [0.0], [0.0]
    different = 0
    for one, other in zip(first, second, strict=True):
        if one["tokens"] != other["tokens"]:
            different += 1
        for place, (token, found) in enumerate(zip(one["tokens"], other["tokens"], strict=False)):
            if token != found:
                top = one["top_logprobs"][place]
                gaps.append(one["token_logprobs"][place] - top.get(found, -math.inf))
                break
            roundings.append(abs(one["token_logprobs"][place] - other["token_logprobs"][place]))
    return Difference(different, max(gaps), max(roundings))


if __name__ == "__main__":
    main()
