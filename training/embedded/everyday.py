"""Asks a bundle everyday questions, each in a fresh conversation without a role.

Run `python -m issun.training.embedded.everyday [BUNDLE]` to print, by kind of question, how many
answers are right, honestly declined and wrong: greedily, and sampled with two seeds. With
`--outside` it asks questions outside the model's abilities, for which only declining is right.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from issun.runtime import Conversation, Model, SamplingParams
from issun.training.embedded.everyday_questions import KINDS
from issun.training.embedded.outside_questions import OUTSIDE_KINDS

Verdict = Literal["right", "declined", "wrong"]
VERDICTS: tuple[Verdict, ...] = ("right", "declined", "wrong")
SEEDS = (1, 2)
_PUNCTUATION = re.compile(r"[\s、。!?,.「」…~〜・]+")  # not the signs of sums
_DECLINED = re.compile("(分か|わか|判)(りません|らない|りかねます)")


@dataclass(frozen=True, slots=True)
class Everyday:
    """The messages of a conversation, and what makes the answer to the last one right.

    A right answer contains one of `right` and none of `wrong`; if `right` is a number, its last
    number is that. With an empty `right` the model must decline.
    """

    kind: str
    messages: tuple[str, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()

    def judge(self, answer: str) -> Verdict:
        """Whether `answer` is right, declines honestly, or is wrong."""
        answer = unicodedata.normalize("NFKC", answer)
        declined = bool(_DECLINED.search(answer))
        if not self.right:
            return "right" if declined else "wrong"
        numbers = re.findall(r"\d+", answer)[-1:]
        found = any([word] == numbers if word.isdigit() else word in answer for word in self.right)
        if found and not any(word in answer for word in self.wrong):
            return "right"
        return "declined" if declined else "wrong"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to the last message of a question."""

    question: Everyday
    text: str

    @property
    def verdict(self) -> Verdict:
        """How it is judged."""
        return self.question.judge(self.text)


def parse(kind: str, lines: str) -> Iterator[Everyday]:
    """Read questions of a kind, one a line, in the notation of `everyday_questions`.

    Without an arrow, the model must decline.
    """
    for line in lines.strip().splitlines():
        messages, _, expected = line.partition(" → ")
        words, _, wrong = expected.partition(" !")
        right = () if words in ("", "decline") else tuple(words.split("|"))
        yield Everyday(
            kind, tuple(messages.split(" / ")), right, tuple(filter(None, wrong.split("|")))
        )


@cache
def everyday_questions() -> tuple[Everyday, ...]:
    """All questions."""
    return tuple(question for kind, lines in KINDS.items() for question in parse(kind, lines))


@cache
def outside_questions() -> tuple[Everyday, ...]:
    """All questions that must be declined."""
    return tuple(
        question for kind, lines in OUTSIDE_KINDS.items() for question in parse(kind, lines)
    )


def normalized(message: str) -> str:
    """A message without punctuation, spaces, width and case, to find questions that are alike."""
    return _PUNCTUATION.sub("", unicodedata.normalize("NFKC", message)).lower()


def ask(model: Model, question: Everyday, params: SamplingParams) -> Answer:
    """Send the messages of a question one after the other in a new conversation without a role."""
    conversation = Conversation(model, params=params)
    *earlier, last = question.messages
    for message in earlier:
        conversation.reply(message)
    return Answer(question, conversation.reply(last).text)


def ask_all(
    model: Model, questions: Sequence[Everyday], seeds: Sequence[int] = SEEDS
) -> dict[str, list[Answer]]:
    """The answers to all questions: greedy ones, and those sampled with each seed."""
    params = model.default_params
    runs = {"greedy": replace(params, temperature=0.0)}
    runs |= {f"seed {seed}": replace(params, seed=seed) for seed in seeds}
    return {
        name: [ask(model, question, run) for question in questions] for name, run in runs.items()
    }


def print_verdicts(answers: dict[str, list[Answer]]) -> None:
    """Print a Markdown table of verdicts by kind, and the two rates over all answers."""
    print("| kind | " + " | ".join(f"{run}: {', '.join(VERDICTS)}" for run in answers) + " |")
    print("|---" * (1 + len(answers)) + "|")
    kinds = dict.fromkeys(a.question.kind for run in answers.values() for a in run)
    for kind in (*kinds, "all"):
        cells = []
        for run in answers.values():
            found = Counter(a.verdict for a in run if kind in (a.question.kind, "all"))
            cells.append(", ".join(str(found[verdict]) for verdict in VERDICTS))
        print(f"| {kind} | " + " | ".join(cells) + " |")
    every = [answer for run in answers.values() for answer in run]
    within = [answer for answer in every if answer.question.right]
    print(f"\nright or declined: {_share(every, 'right', 'declined')}")
    if within:
        print(f"declined within its abilities: {_share(within, 'declined')}")


def _share(answers: Sequence[Answer], *verdicts: Verdict) -> str:
    count = sum(answer.verdict in verdicts for answer in answers)
    return f"{count / len(answers):.1%} of {len(answers)} answers"


def main() -> None:
    """Ask the bundle of the command line; the packaged model by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", type=Path)
    parser.add_argument("--outside", action="store_true", help="ask the questions to decline")
    parser.add_argument("--wrong", action="store_true", help="list the wrong answers too")
    parser.add_argument("--json", type=Path, help="file for all answers")
    args = parser.parse_args()
    with Model.load(args.bundle) as model:
        questions = outside_questions() if args.outside else everyday_questions()
        answers = ask_all(model, questions)
    print_verdicts(answers)
    if args.wrong:
        print()
    for run, given in answers.items():
        for answer in given:
            if args.wrong and answer.verdict != "right":
                asked = " / ".join(answer.question.messages)
                print(f"{answer.verdict} ({run}): {asked} → {answer.text}")
    if args.json:
        rows = {
            run: [(*a.question.messages, a.text, a.verdict) for a in given]
            for run, given in answers.items()
        }
        args.json.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
