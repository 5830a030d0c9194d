"""Scores texts and ranks continuations by the log-probabilities of their tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Literal

import numpy as np

from issun.runtime.decoding.generate import check_prompt
from issun.runtime.decoding.scoring import (
    Logprobs,
    Progress,
    cut_windows,
    score_continuations,
    score_window,
)
from issun.runtime.errors import ParameterError, check_choice, check_range
from issun.runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from issun.runtime.model import Model

By = Literal["token", "byte", "total"]
BY: tuple[By, ...] = ("token", "byte", "total")

# Characters that end a text before a continuation is encoded; one will not merge with it.
_ANCHORS = ("。", "、", ":", "x")


@dataclass(frozen=True, slots=True)
class TextScore:
    """The log-probabilities of a text's tokens, in nats.

    `ids` are those of the text, without begin tokens. `logprobs` belong to the last of them: to
    all, or to all but the first if nothing precedes it. `num_bytes` is the size in UTF-8 of the
    text, less that of a first token without a log-probability.
    """

    ids: list[int]
    logprobs: Logprobs
    num_bytes: int

    @property
    def mean(self) -> float:
        """The mean log-probability of a token."""
        return float(self.logprobs.mean())

    @property
    def perplexity(self) -> float:
        """exp of the negative mean."""
        return math.exp(-self.mean)

    @property
    def error(self) -> float:
        """The standard error of the perplexity over tokens; NaN for a single token."""
        count = len(self.logprobs)
        if count < 2:
            return math.nan
        return self.perplexity * float(self.logprobs.std(ddof=1)) / math.sqrt(count)

    @property
    def bits_per_byte(self) -> float:
        """The negative sum of base-2 log-probabilities, divided by `num_bytes`."""
        return -float(self.logprobs.sum()) / math.log(2) / max(1, self.num_bytes)


@dataclass(frozen=True, slots=True)
class RankedContinuation:
    """A continuation of a prompt, its index among those given, and its log-probabilities in nats.

    `total` is the sum over its tokens, `per_token` and `per_byte` are divided by their number and
    by its size in UTF-8.
    """

    index: int
    text: str
    ids: list[int]
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log-probability of the whole continuation."""
        return math.fsum(self.logprobs)

    @property
    def per_token(self) -> float:
        """The mean log-probability of a token."""
        return self.total / len(self.ids)

    @property
    def per_byte(self) -> float:
        """The log-probability per byte."""
        return self.total / max(1, len(self.text.encode("utf-8", "replace")))

    def score(self, by: By) -> float:
        """Return one of the three."""
        return {"token": self.per_token, "byte": self.per_byte, "total": self.total}[by]


def score_text(
    model: Model, text: str, *, window: int | None, stride: int | None, progress: Progress
) -> TextScore:
    """Return the log-probabilities of a text; see `Model.score_text`."""
    decoder, tokenizer = model.decoder, model.tokenizer
    begin, ids = model.manifest.tokens.begin, tokenizer.encode(text)
    window = decoder.n_positions if window is None else window
    check_range("window", window, Integral, len(begin) + 2, decoder.n_positions)
    size = window - len(begin)
    stride = -(-size // 2) if stride is None else stride
    # Each token that is scored needs one before it.
    check_range("stride", stride, Integral, 1, size if begin else size - 1)
    if len(ids) < (1 if begin else 2):
        raise ParameterError("The text has no token to score: give a longer one.")
    found: list[Logprobs] = []
    with model.busy(), closing(decoder.new_cache()) as cache:
        for start, first, stop in cut_windows(len(ids), size, stride, first=0 if begin else 1):
            read = [*begin, *ids[start:stop]]
            found.append(score_window(decoder, cache, read, len(begin) + first - start))
            progress(stop, len(ids))
    logprobs = np.concatenate(found)
    unscored = tokenizer.decode(ids[: len(ids) - len(logprobs)])
    size_of_text = len(text.encode("utf-8", "replace")) - len(unscored.encode())
    return TextScore(ids, logprobs, size_of_text)


def rank(
    model: Model, prompt: str | Sequence[int], continuations: Sequence[str], *, by: By, slots: int
) -> list[RankedContinuation]:
    """Return the continuations by their log-probability; see `Model.rank`."""
    texts = [] if isinstance(continuations, str) else list(continuations)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ParameterError("continuations must be a list of at least one text.")
    check_choice("by", by, BY)
    check_range("slots", slots, Integral, 1, math.inf)
    ids = model.encode(prompt)
    check_prompt(model.decoder, ids)
    newline = None if isinstance(prompt, str) else model.manifest.prompt.newline
    encoded = []
    for text in texts:
        spelled = text.replace("\n", newline) if newline else text
        encoded.append(encode_after(model.tokenizer, ids, spelled))
        if not encoded[-1]:
            raise ParameterError("The continuation {text!r} has no tokens.", text=text)
    with model.busy():
        logprobs = score_continuations(model.decoder, ids, encoded, slots)
    found = [
        RankedContinuation(index, text, tokens, tuple(scores.tolist()))
        for index, (text, tokens, scores) in enumerate(zip(texts, encoded, logprobs, strict=True))
    ]
    return sorted(found, key=lambda one: -one.score(by))


def encode_after(tokenizer: Tokenizer, prompt: Sequence[int], text: str) -> list[int]:
    """Return the ids of `text` where it continues `prompt`.

    They have no space in front that a tokenizer adds to a whole text, unless it adds one after the
    control token that `prompt` ends with.
    """
    if prompt[-1] in tokenizer.special.values():
        return tokenizer.encode_parts([prompt[-1], text])[1:]
    if tokenizer.begins_with_space:
        for anchor in _ANCHORS:
            before, ids = tokenizer.encode(anchor), tokenizer.encode(anchor + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
    return tokenizer.encode(text)
