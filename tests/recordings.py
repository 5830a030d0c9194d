"""The recorded outputs of transformers and the inputs that they were recorded for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks import demo
from issun.runtime import Model, Turn

RECORDED = Path(__file__).parent / "recorded"
NUM_COLUMNS = 48
NUM_GREEDY = 64
LENGTHS = (1, 6, 40)  # of the random prompts; the last one is continued greedily
BLOCK = 100  # generated strings per digest
ADDED = 800  # strings with added tokens

ROLE, QUESTIONS = demo.ROLE, demo.QUESTIONS
HISTORY = ("User:こんにちは!", "Assistant:ボクは何でも答えられるAIなのだ!")
# So long that the oldest turns must be dropped.
LONG_HISTORY = ("User:今日の天気は?", "Assistant:晴れなのだ!") * 40
# Role and history of each recorded transcript.
CHATS = {"short": (ROLE, HISTORY), "long": (ROLE, LONG_HISTORY), "empty": ((), ())}
# The tokenizers by the names of their files below the test data.
TOKENIZERS = {
    "google_sp": "data/tokenizers/google_sp.model",
    "test_ja_model": "data/tokenizers/test_ja_model.model",
    "ja-small": "checkpoints/ja-small/spiece.model",
}
TEXTS = (
    "instruction_ja.jsonl",
    "jcommonsenseqa-train.jsonl",
    "novel-eval.txt",
    "novel-train.txt",
)


def make_prompts(vocab_size: int) -> list[list[int]]:
    """Random prompts of the lengths LENGTHS."""
    rng = np.random.RandomState(vocab_size)
    return [rng.randint(0, vocab_size, length).tolist() for length in LENGTHS]


def make_columns(vocab_size: int) -> NDArray[np.int64]:
    """The columns of the logits that are recorded, the first and the last among them."""
    return np.linspace(0, vocab_size - 1, NUM_COLUMNS).astype(np.int64)


def log_sum_exp(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return one number per row that depends on every column."""
    wide = logits.astype(np.float64)
    peak = wide.max(axis=-1, keepdims=True)
    total: NDArray[np.float64] = np.log(np.exp(wide - peak).sum(axis=-1)) + peak[:, 0]
    return total


def lines_of(text: Path) -> list[str]:
    """Return the unmodified lines of a text, without their newlines."""
    return text.read_text(encoding="utf-8").split("\n")


def digest(ids: Iterable[Sequence[int]]) -> str:
    """A hash over lists of ids."""
    text = "\n".join(" ".join(map(str, row)) for row in ids)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Recording:
    """Results of transformers for some prompts; the rows of all prompts are concatenated."""

    prompts: list[list[int]]
    columns: NDArray[np.int64]
    logits: NDArray[np.float32]
    log_sum_exp: NDArray[np.float64]
    argmax: NDArray[np.int64]
    greedy: list[int]
    gaps: list[float]

    def difference(self, logits: NDArray[np.float32]) -> float:
        """Return the largest difference to `logits`, which has a row for every recorded one."""
        columns = np.abs(logits[:, self.columns] - self.logits).max()
        return float(max(columns, np.abs(log_sum_exp(logits) - self.log_sum_exp).max()))


def load_recording(name: str, vocab_size: int) -> Recording:
    """The recording with this name."""
    with np.load(RECORDED / f"{name}.npz") as stored:
        cuts = np.cumsum(stored["lengths"])[:-1]
        return Recording(
            prompts=[part.tolist() for part in np.split(stored["ids"], cuts)],
            columns=make_columns(vocab_size),
            logits=stored["logits"],
            log_sum_exp=stored["log_sum_exp"],
            argmax=stored["argmax"],
            greedy=stored["greedy"].tolist(),
            gaps=stored["gaps"].tolist(),
        )


def fewest_dropped(model: Model, role: list[str], turns: list[Turn], message: str) -> int:
    """Return how many of the oldest turns must be dropped for the message to fit."""

    def dropped(told: int) -> int:
        fitted = model.prompts.chat(role, turns, message, max_new_tokens=100, dropped=told)
        return fitted.dropped_turns

    return next(count for count in range(len(turns) + 1) if dropped(count) == count)
