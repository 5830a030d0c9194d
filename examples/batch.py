"""A batch: answer every line of a file, several at a time, as JSON lines.

python batch.py questions.txt > answers.jsonl    (without a file: a few questions of its own)
"""

import json
import sys
from pathlib import Path

from issun.runtime import Completion, Model, SamplingParams

QUESTIONS = ["岩手県の県庁所在地は?", "カナダの首都は?", "世界で一番長い川は?", "14たす13は?"]


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    lines = path.read_text(encoding="utf-8").splitlines() if path else QUESTIONS
    questions = [line for line in lines if line.strip()]

    def report(place: int, completion: Completion) -> None:
        # Called whenever an answer is ready; short answers are ready first.
        print(f"{place + 1}/{len(questions)}: {completion.finish_reason}", file=sys.stderr)

    with Model.load() as model:
        # Up to 8 answers share each step, which is faster than one after the other.
        answers = model.generate_many(
            [model.prompt(question) for question in questions],
            SamplingParams(temperature=0),
            slots=8,
            on_complete=report,
        )

    # The answers are in the order of the questions.
    for question, answer in zip(questions, answers, strict=True):
        print(json.dumps({"question": question, "answer": answer.text}, ensure_ascii=False))


if __name__ == "__main__":
    main()
