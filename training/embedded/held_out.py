"""Held-out questions for evaluation: wordings and combinations that never occur in training.

Reading texts and sums are generated from the seed.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from issun.benchmarks.questions import Question, Table
from issun.training.embedded import geography, questions
from issun.training.embedded.arithmetic import arithmetic
from issun.training.embedded.corpus import Kind, dialogue
from issun.training.embedded.facts import COUNTRIES, PREFECTURES
from issun.training.embedded.outside import unknown
from issun.training.embedded.questions import QAPair
from issun.training.embedded.reading import reading
from issun.training.embedded.styles import Split
from issun.training.embedded.superlatives import SUPERLATIVES

_OTHERS: tuple[Kind, ...] = (
    questions.capital_of,
    questions.seat_of,
    geography.largest_city,
    geography.prefecture_of,
    geography.country_of,
    geography.neighbours,
    geography.members,
    geography.counted,
    unknown,
    questions.identity,
    questions.chatter,
    questions.greeting,
    arithmetic,
    reading,
)


def short_table(seed: int, *, each: int = 60, split: Split = "held_out") -> Table:
    """Questions of every kind without history, in both instruction formats.

    There is a question about every country, prefecture and superlative, and `each` questions of
    each other kind. With `split` "train", they use wordings from training.
    """
    rng = Random(seed)  # noqa: S311 - reproducible
    pairs = [
        kind(rng, split, c) for c in COUNTRIES for kind in (questions.capital, questions.continent)
    ]
    pairs += [
        kind(rng, split, p) for p in PREFECTURES for kind in (questions.seat, questions.region)
    ]
    pairs += [questions.superlative(rng, split, s) for s in SUPERLATIVES]
    pairs += [kind(rng, split) for kind in _OTHERS for _ in range(each)]
    return Table(tuple(_short(rng, split, pair) for pair in pairs))


def chat_table(seed: int, *, each: int = 200, split: Split = "held_out") -> Table:
    """Last questions of conversations with a role; right answers must use the role's style."""
    rng = Random(seed)  # noqa: S311
    return Table(tuple(_chat(rng, split) for _ in range(each)))


def _short(rng: Random, split: Split, pair: QAPair) -> Question:
    if pair.input is None and rng.random() < 0.15:
        pair = questions.with_input(rng, split, pair)
    return Question(pair.message, pair.right, pair.wrong, input=pair.input, category=pair.category)


def _chat(rng: Random, split: Split) -> Question:
    chat = dialogue(rng, split)
    answer = chat.answer.rstrip("。!")
    question = Question(chat.ask.message, (answer,), role=chat.role.lines, history=chat.turns)
    return replace(question, category=f"{chat.ask.category} in chat")
