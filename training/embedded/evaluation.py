"""How well a bundle does on the questions kept for evaluation, and on the published two.

`python -m issun.training.embedded.evaluation [BUNDLE ...]` prints it for any bundle.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from issun.benchmarks.accuracy import Report, evaluate
from issun.benchmarks.questions import read_table
from issun.runtime import Model
from issun.training.embedded.held_out import chat_table, short_table

SEED = 20_261_124  # of the questions; any other makes others


def evaluate_bundle(
    bundle: Path | None, *, seed: int = SEED, samples: int = 1000
) -> dict[str, Any]:
    """Rates by category: held out (greedy), of trained wordings (greedy), and the published two.

    The published questions are asked `samples` times at temperature 0.7, in both formats.
    """
    with Model.load(bundle) as model:
        return {
            "held out": _greedy(model, seed, "held_out"),
            "trained": _greedy(model, seed, "train"),
            "published": evaluate(model, read_table(), samples=samples).to_dict(),
        }


def _greedy(model: Model, seed: int, split: Any) -> dict[str, Any]:
    short = evaluate(model, short_table(seed, split=split), formats=("short",), temperature=0)
    chat = evaluate(model, chat_table(seed, split=split), formats=("chat",), temperature=0)
    return {"short": _rates(short), "chat": _rates(chat)}


def _rates(report: Report) -> dict[str, Any]:
    wrong = [
        {"question": row.question.question, "input": row.question.input, "answers": row.answers}
        for row in report.rows
        if row.rate < 1
    ]
    return {
        "rate": report.rate,
        "questions": len(report.rows),
        "by category": report.by_category(),
        "wrong": wrong,
    }


def print_rates(rates: dict[str, dict[str, Any]]) -> None:
    """Print what `evaluate_bundle` gave, as a Markdown table with a column a bundle."""
    rows: dict[str, list[float]] = {}
    for found in rates.values():
        for row in found["published"]["rows"]:
            rows.setdefault(f"{row['question']} {row['format']} format", []).append(row["rate"])
        for split in ("held out", "trained"):
            for form, part in found[split].items():
                name = f"{split}, {form} format ({part['questions']} questions)"
                rows.setdefault(name, []).append(part["rate"])
                for category, rate in part["by category"].items():
                    rows.setdefault(f"{split}, {form}: {category}", []).append(rate)
    print("| | " + " | ".join(rates) + " |")
    print("|---" * (1 + len(rates)) + "|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1%}" for value in values) + " |")


def main() -> None:
    """Evaluate the bundles of the command line, by default the embedded model's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=SEED, help="of the questions")
    parser.add_argument("--samples", type=int, default=1000, help="of the published questions")
    parser.add_argument("--json", type=Path, help="file for all figures and wrong answers")
    args = parser.parse_args()
    bundles = {path.name: path for path in args.bundles} or {"embedded": None}
    rates = {
        name: evaluate_bundle(path, seed=args.seed, samples=args.samples)
        for name, path in bundles.items()
    }
    if args.json:
        args.json.write_text(json.dumps(rates, ensure_ascii=False, indent=1) + "\n")
    print_rates(rates)


if __name__ == "__main__":
    main()
