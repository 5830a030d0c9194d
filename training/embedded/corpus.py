"""Generates the corpus: single questions, and conversations with a role and a history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from issun.runtime.text.turn import Turn
from issun.training.embedded import geography, questions
from issun.training.embedded.about_conversation import about_conversation
from issun.training.embedded.arithmetic import arithmetic
from issun.training.embedded.everyday import everyday_questions, normalized, outside_questions
from issun.training.embedded.follow_ups import follow_up
from issun.training.embedded.outside import unknown
from issun.training.embedded.questions import QAPair
from issun.training.embedded.reading import reading
from issun.training.embedded.styles import NO_ROLE, Role, Split, draw_role

Kind = Callable[[Random, Split], QAPair]

# Kinds of single questions, with their weights.
KINDS: dict[Kind, int] = {
    questions.capital: 14,
    questions.capital_of: 4,
    questions.continent: 9,
    questions.seat: 7,
    questions.seat_of: 4,
    questions.region: 6,
    questions.superlative: 16,
    geography.largest_city: 5,
    geography.prefecture_of: 12,
    geography.country_of: 7,
    geography.neighbours: 8,
    geography.members: 2,
    geography.counted: 4,
    unknown: 26,
    arithmetic: 36,
    questions.identity: 7,
    questions.chatter: 8,
    questions.greeting: 10,
}
_KINDS, _WEIGHTS = list(KINDS), list(KINDS.values())
_LENGTHS = range(1, 16)  # turns of a conversation
_LENGTH_WEIGHTS = (4, 9, 8, 6, 5, 5, 4, 4, 4, 4, 4, 4, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A role, past turns, and the last question with its answer in the role's style.

    With `cut`, older turns were dropped from the prompt, as in a conversation that fills it.
    """

    role: Role
    turns: tuple[Turn, ...]
    ask: QAPair
    answer: str
    cut: bool = False

    @property
    def messages(self) -> tuple[str, ...]:
        """What the user said, in order."""
        return (*(turn.message for turn in self.turns), self.ask.message)


def single(rng: Random, split: Split) -> QAPair:
    """One question without history, in one of the two instruction formats."""
    if rng.random() < 0.33:
        return reading(rng, split, inline=rng.random() < 0.3)
    ask = draw_kind(rng)(rng, split)
    if ask.category == "identity" and rng.random() < 0.3:
        ask = questions.name(rng, split, None)
    return questions.with_input(rng, split, ask) if rng.random() < 0.12 else ask


def draw_kind(rng: Random) -> Kind:
    """A random kind of question, by weight."""
    return rng.choices(_KINDS, _WEIGHTS)[0]


def dialogue(rng: Random, split: Split, *, last: Kind | None = None) -> Dialogue:
    """A conversation; earlier turns use training wordings, `last` is the kind of the last question.

    `split` applies to the last question and the role.
    """
    role = draw_role(rng, split) if rng.random() < 0.5 else NO_ROLE
    drill = draw_drill(rng) if split == "train" else None
    length = rng.choices(_LENGTHS, _LENGTH_WEIGHTS)[0]
    # Turns from this one on are answered after the oldest were dropped.
    cut_at = rng.randint(length // 2, length - 1) if length > 5 and rng.random() < 0.12 else length
    messages: list[str] = []
    turns: list[Turn] = []
    before: QAPair | None = None
    while True:
        final = len(turns) + 1 == length
        cut = len(turns) >= cut_at
        side = split if final else "train"
        if not turns and length > 1 and rng.random() < 0.3:
            ask = questions.greeting(rng, side)
        elif final and last:
            ask = last(rng, side)
        elif cut or (final and turns and rng.random() < 0.2):
            ask = about_conversation(rng, side, messages, turns, cut=cut)
        elif drill and rng.random() < 0.9:
            ask = drill(rng, side)
        else:
            ask = _turn(rng, side, role, messages, turns, before=before)
        answer = role.style.render(ask.answer)
        if final:
            kept = tuple(turns[max(1, cut_at // 2) :] if cut else turns)
            return Dialogue(role, kept, ask, answer, cut)
        if ask.counts:
            messages.append(ask.message)
        before = ask
        turns.append(Turn(ask.message, answer))


def draw_drill(rng: Random) -> Kind | None:
    """The kind of question that a conversation repeats; usually None, else one that is hard."""
    kind = rng.random()
    if kind < 0.14:
        return arithmetic
    return inline if kind < 0.26 else None


def inline(rng: Random, split: Split) -> QAPair:
    """A text and a question about it in one message."""
    return reading(rng, split, inline=True)


def _turn(
    rng: Random,
    split: Split,
    role: Role,
    earlier: list[str],
    turns: list[Turn],
    *,
    before: QAPair | None,
) -> QAPair:
    kind = rng.random()
    if kind < 0.22:
        return about_conversation(rng, split, earlier, turns)
    if kind < 0.25:
        return questions.name(rng, split, role.name)
    if kind < 0.35:
        return inline(rng, split)
    if kind < 0.62 and before is not None:
        return follow_up(rng, split, before) or draw_kind(rng)(rng, split)
    return draw_kind(rng)(rng, split)


@cache
def _everyday() -> frozenset[tuple[str, ...]]:
    questions = (*everyday_questions(), *outside_questions())
    return frozenset(tuple(map(normalized, asked.messages)) for asked in questions)


def is_everyday(item: QAPair | Dialogue) -> bool:
    """True if it asks a question of `everyday`, alone or as a whole conversation."""
    said = tuple(map(normalized, item.messages if isinstance(item, Dialogue) else [item.message]))
    known = _everyday()
    return any((message,) in known for message in said) or any(
        said[:end] in known for end in range(2, len(said) + 1)
    )


def corpus(seed: int, split: Split = "train", *, chats: float = 0.5) -> Iterator[QAPair | Dialogue]:
    """Generate records endlessly; `chats` is the share of conversations, the rest are questions.

    Everyday and outside questions of the evaluation are left out.
    """
    rng = Random(seed)  # noqa: S311 - reproducible
    while True:
        item = single(rng, split) if rng.random() < 1 - chats else dialogue(rng, split)
        if not is_everyday(item):
            yield item
