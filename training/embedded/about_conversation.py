"""Generates questions about the conversation itself: the first, the last, how many."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from issun.runtime.text.turn import Turn
from issun.training.embedded.outside import UNKNOWN_RIGHT
from issun.training.embedded.questions import QAPair
from issun.training.embedded.styles import Split

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
    "これまでに何問聞いた?", "何問聞いた?", "今まで何個質問した?", "質問は何個目?", "今まで何問質問しましたか?", "何回質問した?", "何個質問したっけ?", "今何個目?",
    "何問目だっけ?", "今何問目だっけ?", "これで何個目の質問?", "今は何問目だった?", "今何番目?", "もう何問目?", "ここまでで何問目?", "今までに何問聞きましたか?",
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
_NTH = (
    "{n}の質問は?", "{n}の質問は何ですか?", "{n}の質問は何だった?", "{n}に何を聞いた?", "{n}の質問を教えて", "{n}の質問は何でしたか?", "{n}に聞いたことは?",
    "{n}に聞いた質問は何?", "{n}の質問を覚えていますか?", "{n}に何を質問した?", "{n}の質問は何だっけ?", "{n}は何を聞いた?",
    "{n}の質問を言って", "{n}にした質問は?",
)  # fmt: skip
_PLACES = {
    2: ("二番目", "2番目", "二つ目", "2つ目", "二問目", "2問目"),
    3: ("三番目", "3番目", "三つ目", "3つ目", "三問目", "3問目"),
}
_AGAIN = (
    "もう一度言って", "もう一回言って", "もう一度お願いします", "もう一回お願い", "今の答えをもう一度", "さっきの答えは?", "さっき何て答えた?", "何て言った?", "もう一度答えて", "前の答えは何でしたか?",
    "今何て言ったの?", "繰り返して", "答えをもう一度言って", "さっきの答えを教えて", "もう一度言ってください。", "え、何?", "もう一回教えて", "聞こえなかった", "直前の答えは?", "さっきは何と答えましたか?",
    "今の答えをもう一回言って", "さっき何と言った?",
)  # fmt: skip

FORGOTTEN = "会話が長くなったので、最初の方はもう{分かりません|分からない}"


def about_conversation(
    rng: Random,
    split: Split,
    earlier: Sequence[str],
    turns: Sequence[Turn] = (),
    *,
    cut: bool = False,
) -> QAPair:
    """A question about one of the `earlier` questions, their number, or the answer before.

    `turns` are all turns so far. With `cut`, the oldest ones were dropped from the prompt, so that
    the first question and the number are no longer known.
    """
    forms = rng.choice(
        (_FIRST, _FIRST, _FIRST, _LAST, _LAST, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NTH, _AGAIN)
    )
    if forms is _AGAIN and not (turns and len(turns[-1].reply) < 60):
        forms = _LAST
    message = rng.choice(forms[-2:] if split == "held_out" else forms[:-2])
    if forms is _AGAIN:
        return QAPair("conversation", message, turns[-1].reply, (turns[-1].reply.rstrip("。!"),))
    if forms is _NTH:
        return _nth(rng, message, earlier, cut=cut)
    if cut and (forms is not _LAST or not earlier):
        return QAPair("conversation", message, FORGOTTEN, UNKNOWN_RIGHT)
    if forms is _NUMBER:
        number = len(earlier) + 1
        return QAPair("conversation", message, f"今は{number}問目{{です}}", (f"は{number}問目",))
    if not earlier:
        return QAPair("conversation", message, "これが最初の質問{です}", ("これが最初の質問",))
    topic, question = ("最初", earlier[0]) if forms is _FIRST else ("前", earlier[-1])
    answer = f"{topic}の質問は「{question}」{{です}}"
    return QAPair("conversation", message, answer, (f"「{question}」",))


def _nth(rng: Random, form: str, earlier: Sequence[str], *, cut: bool) -> QAPair:
    place = rng.choice(list(_PLACES))
    message = form.format(n=rng.choice(_PLACES[place]))
    if cut:
        return QAPair("conversation", message, FORGOTTEN, UNKNOWN_RIGHT)
    if len(earlier) < place:
        answer = f"{place}番目の質問はまだ{{ありません|ない}}"
        return QAPair("conversation", message, answer, ("はまだ",))
    question = earlier[place - 1]
    answer = f"{place}番目の質問は「{question}」{{です}}"
    return QAPair("conversation", message, answer, (f"「{question}」",))
