"""How well a bundle does on the questions kept for evaluation, and on the published two."""

from __future__ import annotations

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
    """Print what `evaluate_bundle` gave for several precisions, one row a figure."""
    print(f"{'':44}" + "".join(f"{name:>10}" for name in rates))
    rows: dict[str, list[float]] = {}
    for found in rates.values():
        for split in ("held out", "trained"):
            for form, part in found[split].items():
                rows.setdefault(f"{split}, {form}", []).append(part["rate"])
                for category, rate in part["by category"].items():
                    rows.setdefault(f"  {split}, {form}: {category}", []).append(rate)
        for row in found["published"]["rows"]:
            rows.setdefault(f"{row['question']} ({row['format']})", []).append(row["rate"])
    for name, values in rows.items():
        print(f"{name:44}" + "".join(f"{value:10.1%}" for value in values))
