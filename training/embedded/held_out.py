"""Questions kept for evaluation: wordings and combinations that training never shows.

Texts to read and sums are made anew from the seed.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from issun.benchmarks.questions import Question, Table
from issun.training.embedded import questions
from issun.training.embedded.corpus import Kind, dialogue
from issun.training.embedded.facts import COUNTRIES, PREFECTURES, SUPERLATIVES
from issun.training.embedded.questions import Ask
from issun.training.embedded.reading import arithmetic, reading
from issun.training.embedded.styles import Split

_OTHERS: tuple[Kind, ...] = (
    questions.capital_of,
    questions.seat_of,
    questions.unknown,
    questions.identity,
    questions.chatter,
    questions.greeting,
    arithmetic,
    reading,
)


def short_table(seed: int, *, each: int = 60, split: Split = "held_out") -> Table:
    """Questions of every kind without history, in both instruction formats.

    Every country, prefecture and superlative is asked, and `each` questions of the other kinds.
    With `split` "train" the same in wordings that training does show.
    """
    rng = Random(seed)  # noqa: S311 - the same questions for everyone who names the seed
    asks = [
        ask(rng, split, c) for c in COUNTRIES for ask in (questions.capital, questions.continent)
    ]
    asks += [ask(rng, split, p) for p in PREFECTURES for ask in (questions.seat, questions.region)]
    asks += [questions.superlative(rng, split, s) for s in SUPERLATIVES]
    asks += [kind(rng, split) for kind in _OTHERS for _ in range(each)]
    return Table(tuple(_short(rng, split, ask) for ask in asks))


def chat_table(seed: int, *, each: int = 200, split: Split = "held_out") -> Table:
    """Last questions of conversations in a role: right only in the role's way of speaking."""
    rng = Random(seed)  # noqa: S311
    return Table(tuple(_chat(rng, split) for _ in range(each)))


def _short(rng: Random, split: Split, ask: Ask) -> Question:
    if ask.input is None and rng.random() < 0.15:
        ask = questions.with_input(rng, split, ask)
    return Question(ask.message, ask.right, ask.wrong, input=ask.input, category=ask.category)


def _chat(rng: Random, split: Split) -> Question:
    talk = dialogue(rng, split)
    said = talk.answer.rstrip("。!")
    asked = Question(talk.ask.message, (said,), role=talk.role.lines, history=talk.turns)
    return replace(asked, category=f"{talk.ask.category} in chat")
