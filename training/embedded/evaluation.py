"""How well a bundle does on the questions kept for evaluation, and on the published two.

`python -m issun.training.embedded.evaluation [BUNDLE ...]` prints it for any bundle. Of several
bundles the first is what the others are compared with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from issun.benchmarks.accuracy import Report, evaluate, paired_interval
from issun.benchmarks.questions import read_table
from issun.runtime import Model
from issun.training.embedded.held_out import chat_table, short_table
from issun.training.embedded.styles import Split

SEED = 20_261_124  # of the questions; any other makes others
SHORT, CHAT = 60, 200  # questions of each kind that is made anew, and conversations
_FALL = 0.02  # of a rate: what is not worth a line


def evaluate_bundle(
    bundle: Path | None,
    *,
    seed: int = SEED,
    samples: int = 1000,
    short: int = SHORT,
    chat: int = CHAT,
) -> dict[str, Any]:
    """Rates by category: held out (greedy), of trained wordings (greedy), and the published two.

    The published questions are asked `samples` times at temperature 0.7, in both formats.
    """
    with Model.load(bundle) as model:

        def greedy(split: Split) -> dict[str, Any]:
            asked = short_table(seed, each=short, split=split)
            talks = chat_table(seed, each=chat, split=split)
            return {
                "short": _rates(evaluate(model, asked, formats=("short",), temperature=0)),
                "chat": _rates(evaluate(model, talks, formats=("chat",), temperature=0)),
            }

        published = evaluate(model, read_table(), samples=samples)
        return {
            "held out": greedy("held_out"),
            "trained": greedy("train"),
            "published": published.to_dict()
            | {"verdicts": [_spelled(row.verdicts) for row in published.rows]},
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
            name: _spelled(row.verdicts[0] for row in report.rows if row.question.category == name)
            for name in report.by_category()
        },
        "wrong": wrong,
    }


def _spelled(verdicts: Iterable[bool]) -> str:
    return "".join(str(int(right)) for right in verdicts)


def _verdicts(found: dict[str, Any]) -> dict[str, str]:
    """For each row of the table a 1 for every right answer and a 0 for every wrong one."""
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
    """Print what `evaluate_bundle` gave: a Markdown table with a column a bundle, and the falls."""
    table = {name: _verdicts(found) for name, found in rates.items()}
    print("| | " + " | ".join(rates) + " |")
    print("|---" * (1 + len(rates)) + "|")
    first, *others = table
    for name in table[first]:
        values = (rows[name].count("1") / len(rows[name]) for rows in table.values())
        print(f"| {name} | " + " | ".join(f"{value:.1%}" for value in values) + " |")
    for other in others:
        print(f"\n{other} against {first}, falls of more than {_FALL:.0%}:")
        print("\n".join(_falls(table[first], table[other])) or "none")


def _falls(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """The rows whose rate falls by more than 2 points, with the paired interval of the change."""
    for name, was in before.items():
        now = after[name]
        change = (now.count("1") - was.count("1")) / len(was)
        if change < -_FALL:
            low, high = paired_interval(*([mark == "1" for mark in marks] for marks in (was, now)))
            interval = f"95 % between {low:+.1%} and {high:+.1%}"
            yield f"- {name}: {change:+.1%}, {interval}, of {len(was)}"


def main() -> None:
    """Evaluate the bundles of the command line, by default the embedded model's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=SEED, help="of the questions")
    parser.add_argument("--samples", type=int, default=1000, help="of the published questions")
    parser.add_argument("--short", type=int, default=SHORT, help="of each kind that is made anew")
    parser.add_argument("--chat", type=int, default=CHAT, help="conversations")
    parser.add_argument("--json", type=Path, help="file for all figures and wrong answers")
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
