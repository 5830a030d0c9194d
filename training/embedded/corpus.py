"""Generates the corpus: single questions, and conversations with a role and a history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from issun.runtime.text.turn import Turn
from issun.training.embedded import questions
from issun.training.embedded.questions import QAPair
from issun.training.embedded.reading import arithmetic, reading
from issun.training.embedded.styles import NO_ROLE, Role, Split, draw_role

Kind = Callable[[Random, Split], QAPair]

# Kinds of single questions, with their weights.
KINDS: dict[Kind, int] = {
    questions.capital: 12,
    questions.capital_of: 3,
    questions.continent: 8,
    questions.seat: 8,
    questions.seat_of: 3,
    questions.region: 7,
    questions.superlative: 12,
    questions.unknown: 12,
    arithmetic: 30,
    questions.identity: 7,
    questions.chatter: 4,
    questions.greeting: 6,
}
_KINDS, _WEIGHTS = list(KINDS), list(KINDS.values())

_FIRST = (
    "最初の質問は何ですか?", "最初の質問は?", "最初の質問は何?", "最初の質問は何だった?", "最初の質問を教えて",
    "最初に何を聞いた?", "最初に何を質問しましたか?", "私の最初の質問は?", "一番最初の質問は何でしたか?",
    "一つ目の質問は何?", "はじめの質問は何ですか?", "最初に聞いたことは何?", "1問目は何だった?",
    "最初の質問は何でしたか?", "最初に質問したことは?", "最初に聞いた質問は何ですか?", "1つ目の質問を教えて",
    "私の最初の質問を言って", "私が最初に聞いたことは?", "最初に尋ねたことは何?", "私が最初に尋ねた質問は何でしたか?",
    "一番はじめの問いは?", "はじめに何を聞きましたか?", "私は最初に何を聞いた?", "最初のは何の質問だった?",
    "一番最初に私が聞いたことを教えて", "最初にどんな質問をしましたか?", "最初の問いを教えてください。",
    "私が最初に聞いたのは何ですか?", "私が最初に尋ねたことは何でしたか?", "最初の問いは何ですか?", "最初の問いは?",
    "はじめの問いは何だった?", "最初にした質問を教えて", "私のした最初の質問は何?", "一番最初にした質問は何だった?",
    "私が一番最初に聞いた質問は何だった?", "最初に出した問いは何?", "私の最初の問いは何でしたか?",
    "最初の質問を覚えていますか?", "私が最初にした質問は何ですか?", "最初の問いは何だった?",
)  # fmt: skip
_LAST = (
    "さっきの質問は何ですか?", "さっき何を聞いた?", "さっき何を質問しましたか?", "直前の質問は何?", "前の質問は何でしたか?",
    "一つ前の質問は?", "今さっき聞いたことは何?", "さっきの質問は?", "直前の質問を教えて", "私は今何を聞きましたか?",
    "一つ前に何を聞いた?", "前の質問を教えて", "さっき聞いたのは何だっけ?", "直前に何を聞きましたか?",
    "直前の問いは何?", "一つ前の質問を言って", "前に何を聞いたか教えて", "今聞いたばかりの質問は何?",
    "私がさっきした質問は何?", "ついさっき何を聞いた?", "さっきのは何の質問だった?", "直前にどんな質問をしましたか?",
    "私が前に聞いたことは?", "私は直前に何を聞いた?",
    "さっきの問いは何だった?", "私が直前に聞いたことは何ですか?", "今さっきの質問は何でしたか?",
    "私がさっき尋ねたのは何?", "直前の質問は何だった?",
    "前の質問を覚えてる?", "ついさっきの質問は何だった?", "私がさっき聞いたことは何ですか?",
)  # fmt: skip
_NUMBER = (
    "今何問目?", "今何問目ですか?", "今は何問目?", "これは何問目?", "これは何問目ですか?", "何問目?", "今ので何問目?",
    "今何問目かな?", "この質問は何問目?", "何個目の質問?", "何個目の質問ですか?", "今何個目の質問?", "質問はこれで何問目?",
    "これが何問目か教えて", "今が何問目か答えて", "何問目の質問?", "何問目の質問ですか?", "今は何個目の質問ですか?",
    "今何問目になりましたか?", "今何番目の質問?", "これは何番目の質問ですか?", "今の質問は何番目?", "質問の数はこれでいくつ目?",
    "いくつ目の質問か教えて", "今の質問は何問目か教えてください。", "何問目まで来た?",
    "今は何問目になりますか?", "何個目の質問か教えてください。", "今は何番目でしょうか?", "これは何問目でしょうか?",
    "何問目でしょう?", "今は何個目でしょうか?", "この質問は何問目でしょうか?", "何番目の質問か教えてください。",
    "何問目か教えて", "何問目か分かりますか?", "今何問目でしょう?", "質問は何問目になりましたか?", "今は何問目の質問?",
    "今のは何番目の質問か教えて", "今は何番目の質問でしょうか?",
    "これで何問目になる?", "今何問目か教えて", "今の質問は何問目ですか?", "いま何問目?",
    "何問目の質問か教えてください。", "今は何問目でしょうか?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A role, past turns, and the last question with its answer in the role's style."""

    role: Role
    turns: tuple[Turn, ...]
    ask: QAPair
    answer: str


def single(rng: Random, split: Split) -> QAPair:
    """One question without history, in one of the two instruction formats."""
    if rng.random() < 0.36:
        return reading(rng, split, inline=rng.random() < 0.2)
    ask = draw_kind(rng)(rng, split)
    if ask.category == "identity" and rng.random() < 0.2:
        ask = questions.name(rng, split, None)
    return questions.with_input(rng, split, ask) if rng.random() < 0.15 else ask


def draw_kind(rng: Random) -> Kind:
    """A random kind of question, by weight."""
    return rng.choices(_KINDS, _WEIGHTS)[0]


def dialogue(rng: Random, split: Split, *, last: Kind | None = None) -> Dialogue:
    """A conversation; earlier turns use training wordings, `last` is the kind of the last question.

    `split` applies to the last question and the role.
    """
    role = draw_role(rng, split) if rng.random() < 0.8 else NO_ROLE
    drill = draw_drill(rng) if split == "train" else None
    length = rng.choices((1, 2, 3, 4, 6, 8, 11, 14), (3, 4, 4, 4, 4, 4, 2, 1))[0]
    length = max(1, length - rng.randint(0, 1 + length // 4))
    messages: list[str] = []
    turns: list[Turn] = []
    while True:
        final = len(turns) + 1 == length
        side = split if final else "train"
        if not turns and length > 1 and rng.random() < 0.4:
            ask = questions.greeting(rng, side)
        elif final and last:
            ask = last(rng, side)
        elif drill and rng.random() < 0.9:
            ask = drill(rng, side)
        else:
            ask = _turn(rng, side, role, messages)
        answer = role.style.render(ask.answer)
        if final:
            return Dialogue(role, tuple(turns), ask, answer)
        if ask.counts:
            messages.append(ask.message)
        turns.append(Turn(ask.message, answer))


def draw_drill(rng: Random) -> Kind | None:
    """The kind of question that a conversation repeats; usually None, else one that is hard."""
    kind = rng.random()
    if kind < 0.14:
        return arithmetic
    return inline if kind < 0.34 else None


def inline(rng: Random, split: Split) -> QAPair:
    """A text and a question about it in one message."""
    return reading(rng, split, inline=True)


def _turn(rng: Random, split: Split, role: Role, earlier: list[str]) -> QAPair:
    kind = rng.random()
    if kind < 0.30:
        return about_conversation(rng, split, earlier)
    if kind < 0.33:
        return questions.name(rng, split, role.name)
    if kind < 0.46:
        return inline(rng, split)
    return draw_kind(rng)(rng, split)


def about_conversation(rng: Random, split: Split, earlier: list[str]) -> QAPair:
    """A question about the first question, the previous one, or the number of questions so far."""
    forms = rng.choice((_FIRST, _FIRST, _LAST, _NUMBER, _NUMBER, _NUMBER))
    message = rng.choice(forms[-2:] if split == "held_out" else forms[:-2])
    if forms is _NUMBER:
        number = len(earlier) + 1
        return QAPair("conversation", message, f"今は{number}問目{{です}}", (f"は{number}問目",))
    if not earlier:
        return QAPair("conversation", message, "これが最初の質問{です}", ("これが最初の質問",))
    topic, question = ("最初", earlier[0]) if forms is _FIRST else ("前", earlier[-1])
    answer = f"{topic}の質問は「{question}」{{です}}"
    return QAPair("conversation", message, answer, (f"「{question}」",))


def corpus(seed: int, split: Split = "train", *, chats: float = 0.5) -> Iterator[QAPair | Dialogue]:
    """Generate records endlessly; `chats` is the share of conversations, the rest are questions."""
    rng = Random(seed)  # noqa: S311 - reproducible
    while True:
        yield single(rng, split) if rng.random() < 1 - chats else dialogue(rng, split)
