"""Evaluates a bundle on the held-out questions and on the two published questions.

Run `python -m issun.training.embedded.evaluation [BUNDLE ...]` to print the rates of bundles. With
several bundles, the others are compared with the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from issun.benchmarks.accuracy import Report, evaluate, paired_interval
from issun.benchmarks.asking import Evaluation
from issun.benchmarks.questions import Format, Table, read_table
from issun.runtime import Model
from issun.training.embedded.held_out import chat_table, short_table
from issun.training.embedded.styles import Split

SEED = 20_261_124  # of the questions
SHORT, CHAT = 60, 200  # questions of each generated kind, and conversations
_DROP = 0.02  # smaller drops of a rate are not listed


def evaluate_bundle(
    bundle: Path | None,
    *,
    seed: int = SEED,
    samples: int = 1000,
    short: int = SHORT,
    chat: int = CHAT,
) -> dict[str, Any]:
    """Rates by category on held-out questions, trained wordings, and the published questions.

    The first two are answered greedily; the published questions `samples` times at temperature 0.7,
    in both formats.
    """
    with Model.load(bundle) as model:

        def greedily(table: Table, kind: Format) -> Evaluation:
            return Evaluation(table=table, formats=(kind,), temperature=0)

        def greedy(split: Split) -> dict[str, Any]:
            questions = short_table(seed, each=short, split=split)
            chats = chat_table(seed, each=chat, split=split)
            return {
                "short": _rates(evaluate(model, greedily(questions, "short"))),
                "chat": _rates(evaluate(model, greedily(chats, "chat"))),
            }

        published = evaluate(model, Evaluation(table=read_table(), samples=samples))
        return {
            "held out": greedy("held_out"),
            "trained": greedy("train"),
            "published": published.to_dict()
            | {"verdicts": [_digits(row.verdicts) for row in published.rows]},
        }


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
        "verdicts": {
            name: _digits(row.verdicts[0] for row in report.rows if row.question.category == name)
            for name in report.by_category()
        },
        "wrong": wrong,
    }


def _digits(verdicts: Iterable[bool]) -> str:
    return "".join(str(int(right)) for right in verdicts)


def _verdicts(found: dict[str, Any]) -> dict[str, str]:
    """For each row of the table, a string with 1 for each right answer and 0 for each wrong one."""
    published = found["published"]
    rows = {
        f"{row['question']} {row['format']} format": verdicts
        for row, verdicts in zip(published["rows"], published["verdicts"], strict=True)
    }
    for split in ("held out", "trained"):
        for form, part in found[split].items():
            name = f"{split}, {form} format ({part['questions']} questions)"
            rows[name] = "".join(part["verdicts"].values())
            for category, verdicts in part["verdicts"].items():
                rows[f"{split}, {form}: {category}"] = verdicts
    return rows


def print_rates(rates: dict[str, dict[str, Any]]) -> None:
    """Print a Markdown table of results of `evaluate_bundle`, one column per bundle, and drops."""
    table = {name: _verdicts(found) for name, found in rates.items()}
    print("| | " + " | ".join(rates) + " |")
    print("|---" * (1 + len(rates)) + "|")
    first, *others = table
    for name in table[first]:
        values = (rows[name].count("1") / len(rows[name]) for rows in table.values())
        print(f"| {name} | " + " | ".join(f"{value:.1%}" for value in values) + " |")
    for other in others:
        print(f"\n{other} compared with {first}, drops of more than {_DROP * 100:.0f} points:")
        print("\n".join(_drops(table[first], table[other])) or "none")


def _drops(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """The rows whose rate drops by more than 2 points, with the paired confidence interval."""
    for name, old in before.items():
        new = after[name]
        change = (new.count("1") - old.count("1")) / len(old)
        if change < -_DROP:
            low, high = paired_interval(*([mark == "1" for mark in marks] for marks in (old, new)))
            interval = f"95 % confidence interval {low:+.1%} to {high:+.1%}"
            yield f"- {name}: {change:+.1%}, {interval}, n = {len(old)}"


def main() -> None:
    """Evaluate the bundles of the command line; the embedded model's by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the questions")
    parser.add_argument(
        "--samples", type=int, default=1000, help="answers to each published question"
    )
    parser.add_argument("--short", type=int, default=SHORT, help="questions of each generated kind")
    parser.add_argument("--chat", type=int, default=CHAT, help="conversations")
    parser.add_argument("--json", type=Path, help="file for all results and wrong answers")
    args = parser.parse_args()
    bundles = {path.name: path for path in args.bundles} or {"embedded": None}
    rates = {
        name: evaluate_bundle(
            path, seed=args.seed, samples=args.samples, short=args.short, chat=args.chat
        )
        for name, path in bundles.items()
    }
    if args.json:
        args.json.write_text(json.dumps(rates, ensure_ascii=False, indent=1) + "\n")
    print_rates(rates)


if __name__ == "__main__":
    main()
