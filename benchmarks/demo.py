"""`make demo`: exports a checkpoint and asks it the questions of the model's chat sample."""

from __future__ import annotations

import argparse
from pathlib import Path

from issun.benchmarks.make_checkpoint import SHAPES, make_checkpoint
from issun.export import ExportOptions, export
from issun.runtime import Conversation, Model

ROLE = (
    "User:あなたは「ずんだもん」なのだ。語尾に「なのだ」を付けてしゃべるのだ。",
    "Assistant:了解したのだ!",
)
QUESTIONS = (
    "日本で一番高い山は?",
    "日本で一番広い湖は?",
    "世界で一番高い山は?",
    "世界で一番広い湖は?",
    "最初の質問は何ですか?",
    "今何問目?",
)


def main() -> None:
    """Export ja-small, or a tiny random checkpoint where it is not at hand, and chat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test-data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    checkpoint = args.test_data / "checkpoints" / "ja-small"
    if checkpoint.is_dir():
        print(f"Exporting {checkpoint}: a small trained model that answers, often wrongly.")
    else:
        checkpoint = args.folder / "checkpoint"
        print("No trained checkpoint is at hand: exporting a tiny one with random weights, which")
        print("answers with random words. It shows that everything runs, nothing else.")
        if not checkpoint.exists():
            make_checkpoint(checkpoint, SHAPES["tiny"])
    bundle = args.folder / "bundle"
    export(checkpoint, bundle, ExportOptions(force=True))
    with Model.load(bundle) as model:
        chat = Conversation(model, ROLE)
        for question in QUESTIONS:
            print(f"\n> {question}")
            stream = chat.stream(question)
            for segment in stream:
                print(segment.text, end="", flush=True)
            timings = stream.finish().timings
            print(f"\n[{timings.new_tokens} tokens, {timings.tokens_per_second:.0f} tokens/s]")
    print(f"\nTalk with it yourself: .venv/bin/issun chat {bundle}")


if __name__ == "__main__":
    main()
