"""`make demo`: asks the demonstration model the six questions of the published chat example."""

from __future__ import annotations

import argparse

from issun.benchmarks.accuracy import judge
from issun.cli.language import tr
from issun.runtime import Conversation, Model, Turn
from issun.runtime.defaults import make_params

ROLE = (
    "User:あなたは「ずんだもん」なのだ。語尾に「なのだ」を付けてしゃべるのだ。",
    "Assistant:了解したのだ!",
)
HISTORY = (Turn("こんにちは!", "ボクは何でも答えられるAIなのだ!"),)
# Questions, each with words of which a right answer contains one.
QUESTIONS = {
    "日本で一番高い山は?": ("富士山",),
    "日本で一番広い湖は?": ("琵琶湖", "びわ湖"),
    "世界で一番高い山は?": ("エベレスト",),
    "世界で一番広い湖は?": ("カスピ海",),
    "最初の質問は何ですか?": ("日本で一番高い山は",),
    "今何問目?": ("6問目", "六問目"),
}
STYLE = "なのだ"


def main() -> None:
    """Chat with a bundle and count the right answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", help="a bundle; the demonstration model by default")
    parser.add_argument("--seed", type=int, help="sample with it; greedily by default")
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    args = parser.parse_args()
    with Model.load(args.bundle, trust=args.trust) as model:
        right = ask_all(model, args.seed)
    found = tr("{right} of {asked} answers are right and in the role's speaking style.")
    print(f"\n{found.format(right=right, asked=len(QUESTIONS))}")
    print(tr("Chat with it yourself: .venv/bin/issun chat"))


def ask_all(model: Model, seed: int | None, *, quiet: bool = False) -> int:
    """Ask the questions in order; returns the number of right answers in the role's style.

    Answers are sampled with `seed`, or greedy without one.
    """
    chosen = {"temperature": 0.0} if seed is None else {"seed": seed}
    chat = Conversation(model, ROLE, params=make_params(model.manifest, **chosen))
    chat.turns += HISTORY
    right = 0
    for question, words in QUESTIONS.items():
        stream = chat.stream(question)
        if not quiet:
            print(f"\n> {question}")
            for segment in stream:
                print(segment.text, end="", flush=True)
            print()
        answer = stream.finish().text
        right += judge(answer, words)[0] and STYLE in answer
    return right


if __name__ == "__main__":
    main()
