"""Estimates the speedup by draft tokens: replays answers on measured step times.

`python -m issun.benchmarks.drafts BUNDLE [--records FILE] [--text FILE] [--steps BUNDLE]` measures
the time of a step over 1 to 16 tokens, and then replays answers as if the model generated them:
draft tokens are accepted as long as they equal the answer's. With `--steps`, the times are those of
another bundle, for instance a larger one. With `--row-cost`, they are those of a CPU on which one
more row adds that share of a step. With `--together 2`, two answers at a time form a batch,
as in the server.

Records are JSONL with instruction, input and output. Their outputs are replayed, and the model's
own answers in conversations of six of their instructions, sampled as the bundle does by default.
From the paragraphs of a text it makes answers that quote their input: a sentence is extracted, or a
word replaced. Repetitive answers (less than 70 % distinct 4-grams) are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from issun.runtime import Model
from issun.runtime.decoding.decoder import split_chunks
from issun.runtime.decoding.draft_table import DraftTable
from issun.runtime.decoding.drafts import MAX_DRAFT, Drafts, Predictions, draft_together
from issun.runtime.files import read_text
from issun.runtime.text.turn import Turn

_T = TypeVar("_T", int, float)
_DEPTH, _ROUNDS = 256, 9  # context in tokens, and measurements of each step
_MIN_TOKENS, _MIN_DISTINCT, _MIN_QUOTED = 16, 0.7, 0.5
_TURNS, _CONVERSATIONS, _MAX_MESSAGE = 6, 20, 120  # the last in characters


@dataclass(frozen=True, slots=True)
class Trace:
    """The token ids of a prompt, its answer, and the likeliest token at each of its places.

    There are no `likeliest` tokens if the answer is not the model's own.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    likeliest: Sequence[int] = ()

    @property
    def distinct(self) -> float:
        """The number of different 4-grams of the answer, relative to all; small if it repeats."""
        grams = list(_grams(self.answer))
        return len(set(grams)) / len(grams) if grams else 0.0

    @property
    def quoted(self) -> float:
        """The share of the answer's tokens in 4-grams that also occur in the prompt."""
        known, inside = set(_grams(self.prompt)), set[int]()
        for start, gram in enumerate(_grams(self.answer)):
            if gram in known:
                inside.update(range(start, start + 4))
        return len(inside) / len(self.answer)


def _grams(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return zip(*(ids[i:] for i in range(4)), strict=False)


class _Answer:
    """An answer that is replayed."""

    def __init__(self, trace: Trace, row: float, predictions: Predictions) -> None:
        self.drafts = Drafts(trace.prompt, row, predictions)
        no_id = -1  # never accepted
        self._likeliest = trace.likeliest or [no_id] * len(trace.answer)
        self._ids, self._at = trace.answer, -1
        self._next()  # the first token comes from the prompt

    @property
    def ended(self) -> bool:
        return self._at == len(self._ids) - 1

    def _next(self) -> bool:
        """Add the next token; return whether the draft guessed it."""
        self._at += 1
        self.drafts.predict(self._likeliest[self._at])
        return self.drafts.accept(self._ids[self._at])

    def step(self) -> None:
        """Add the accepted tokens of the draft and the one after them."""
        while not self.ended and self._next():
            pass


def replay(
    traces: Sequence[Trace],
    costs: Sequence[Sequence[float]],
    row: float,
    predictions: Predictions | None = None,
    *,
    table: DraftTable | None = None,
) -> float:
    """The speedup: time of the answers' decode steps without drafts, divided by that with drafts.

    The answers start at the same time. `costs[m][n]` is the time of a step over one token and n
    draft tokens for each of m + 1 answers. `predictions` are those of the conversation so far;
    without them, each answer starts from the bundle's `table`.
    """
    lengths = [len(trace.answer) for trace in traces]
    running = [sum(length > at for length in lengths) for at in range(1, max(lengths))]
    alone, spent = sum(costs[count - 1][0] for count in running), 0.0
    answers = [_Answer(trace, row, predictions or Predictions(table)) for trace in traces]
    while answers := [answer for answer in answers if not answer.ended]:
        # Drafts are not limited by the ends of the answers, which are unknown.
        batch = [answer.drafts for answer in answers]
        drafts = draft_together(batch, [MAX_DRAFT] * len(batch))
        spent += costs[len(answers) - 1][max(map(len, drafts))]
        for answer in answers:
            answer.step()
    return alone / spent


def kept(traces: Iterable[Trace]) -> list[Trace]:
    """Those that are neither short nor repetitive."""
    return [t for t in traces if len(t.answer) >= _MIN_TOKENS and t.distinct >= _MIN_DISTINCT]


def replay_all(
    conversation: Iterable[Trace],
    costs: Sequence[Sequence[float]],
    row: float,
    table: DraftTable | None = None,
) -> Iterator[tuple[Trace, float]]:
    """Yield each trace that is kept, with its speedup; `table` is the bundle's."""
    predictions = Predictions(table)
    for trace in kept(conversation):
        yield trace, replay([trace], costs, row, predictions)


def replay_batches(
    traces: Iterable[Trace],
    size: int,
    costs: Sequence[Sequence[float]],
    row: float,
    table: DraftTable | None = None,
) -> Iterator[tuple[Trace, float]]:
    """Yield the first of each `size` traces that are kept, with the speedup of all."""
    for batch in zip(*[iter(kept(traces))] * size, strict=False):
        yield batch[0], replay(batch, costs, row, table=table)


def step_costs(model: Model, count: int = 1) -> list[float]:
    """Seconds of a step over 1, 2, … tokens for each of `count` sequences.

    They have 256 tokens of context; medians of 9.
    """
    ids = [i % model.manifest.tokens.pieces for i in range(7, 7 + _DEPTH + MAX_DRAFT + 1)]
    depth = min(_DEPTH, model.decoder.n_positions - MAX_DRAFT - 1)
    cache = model.decoder.new_cache(count)
    for chunk in split_chunks(ids[:depth]):
        model.decoder.forward(cache, [chunk] * count, [])
    seconds: list[list[float]] = [[] for _ in range(MAX_DRAFT + 1)]
    for _ in range(_ROUNDS):
        for draft, times in enumerate(seconds):
            started = time.perf_counter()
            chunk = ids[depth : depth + 1 + draft]
            model.decoder.forward(cache, [chunk] * count, range(count * len(chunk)))
            times.append(time.perf_counter() - started)
            for slot in range(count):
                cache.rewind(depth, slot)
    cache.close()
    return [median(times) for times in seconds]


def supposed_costs(row: float, count: int) -> list[float]:
    """As `step_costs` if a step takes a second and each further row the share `row` of that."""
    return [1 + row * (count * (1 + draft) - 1) for draft in range(MAX_DRAFT + 1)]


def quoting(paragraphs: Iterable[str]) -> Iterator[dict[str, str]]:
    """Records whose answers quote their input: one sentence, or all with a word replaced."""
    for text in paragraphs:
        sentences = re.findall(r"[^。]+。」?", text)
        words = re.findall(r"[一-龥]{2,}", text)
        if len(sentences) < 3 or not words:
            continue
        place, word = len(sentences) // 2, words[len(words) // 2]
        yield {
            "instruction": f"次の文章の{place + 1}番目の文を抜き出してください。",
            "input": text,
            "output": sentences[place],
        }
        yield {
            "instruction": f"次の文章の「{word}」を「何か」に直してください。",
            "input": text,
            "output": text.replace(word, "何か"),
        }


def traces(model: Model, records: Iterable[dict[str, str]]) -> Iterator[Trace]:
    """The records encoded with the bundle's template; those that do not fit are left out."""
    end = [] if model.manifest.tokens.eos is None else [model.manifest.tokens.eos]
    for record in records:
        prompt = model.prompt(record["instruction"], record.get("input"))
        answer = model.tokenizer.encode(record["output"]) + end
        if len(prompt) + len(answer) <= model.decoder.n_positions:
            yield Trace(prompt, answer)


def conversations(model: Model, messages: Sequence[str], count: int) -> Iterator[list[Trace]]:
    """Conversations of six of the messages each, answered by the model as it does by default."""
    random = np.random.default_rng(0)
    for seed in range(count):
        params = replace(model.default_params, seed=seed, logprobs=1, lookup=False)
        turns, answers = list[Turn](), list[Trace]()
        chosen = random.choice(len(messages), min(_TURNS, len(messages)), replace=False)
        for message in (messages[index] for index in chosen):
            fitted = model.prompts.chat((), turns, message, max_new_tokens=params.max_new_tokens)
            segments = list(model.stream(fitted.ids, params))
            turns.append(Turn(message, "".join(segment.text for segment in segments)))
            likeliest = [next(iter(s.logprob.top)) for s in segments if s.logprob]
            answers.append(Trace(fitted.ids, [s.id for s in segments], likeliest))
        yield answers


def describe(name: str, gains: Sequence[float]) -> str:
    """One line of output: number of answers, mean speedup, smallest speedup."""
    if not gains:
        return f"{name:<25} none"
    mean = len(gains) / sum(1 / gain for gain in gains)  # equal weight in tokens
    return f"{name:<25}{len(gains):5}: {mean:.2f} times as fast, at least {min(gains):.3f}"


def _number(kind: type[_T], low: _T, high: _T) -> Callable[[str], _T]:
    """A type of an argument: a number from `low` to `high`."""

    def parse(text: str) -> _T:
        with suppress(ValueError):
            if low <= (value := kind(text)) <= high:  # false for NaN
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")

    return parse


def main() -> int:
    """Measure as the command line says, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, prog="drafts")
    share, natural = _number(float, 1e-4, 1.0), _number(int, 1, 1024)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=Path, metavar="BUNDLE", help="time the steps of this one")
    parser.add_argument("--row-cost", type=share, help="of a supposed CPU, such as 0.04")
    parser.add_argument(
        "--together", type=natural, default=1, help="answers at a time (default: 1)"
    )
    parser.add_argument("--kv-cache", help="float32 or int8")
    parser.add_argument("--threads", type=natural)
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    parser.add_argument("--records", type=Path, help="JSONL: instruction, input, output")
    parser.add_argument("--text", type=Path, help="one paragraph a line")
    args = parser.parse_args()
    options = {"threads": args.threads, "kv_cache": args.kv_cache, "trust": args.trust}
    row, counts = args.row_cost, range(1, args.together + 1)
    if row is not None:
        costs = [supposed_costs(row, count) for count in counts]
    else:
        with Model.load(args.steps or args.bundle, **options) as model:
            row = model.decoder.row_cost
            if row is None:
                print(
                    f"{args.steps or args.bundle}: {model.manifest.precision.name} uses no drafts",
                    file=sys.stderr,
                )
                return 2
            costs = [step_costs(model, count) for count in counts]
    for count, times in enumerate(costs, 1):
        shown = ", ".join(f"{n}: {times[n - 1] * 1e3:.1f} ms" for n in (1, 2, 4, 8, MAX_DRAFT + 1))
        of_each = f" of each of {count} answers" if count > 1 else ""
        print(f"step time by number of tokens{of_each}: {shown}")
    print(f"one more row counts as {row:.3f}")
    found: dict[str, list[list[Trace]]] = {}
    with Model.load(args.bundle, **options) as model:
        table = model.draft_table
        if args.records:
            records = [json.loads(line) for line in read_text(args.records).splitlines()]
            found["records"] = [[trace] for trace in traces(model, records)]
            messages = [r["instruction"] for r in records if len(r["instruction"]) <= _MAX_MESSAGE]
            found["chat"] = list(conversations(model, messages, _CONVERSATIONS))
        if args.text:
            paragraphs = read_text(args.text).splitlines()
            found["text"] = [[trace] for trace in traces(model, quoting(paragraphs))]
    for source, answers in found.items():
        if args.together > 1:
            gains = [*replay_batches(chain(*answers), args.together, costs, row, table)]
        else:
            gains = [pair for answer in answers for pair in replay_all(answer, costs, row, table)]
        for quotes in (True, False):
            chosen = [gain for trace, gain in gains if (trace.quoted >= _MIN_QUOTED) is quotes]
            print(describe(f"{source}, {'quoting' if quotes else 'other'} answers", chosen))
        left_out = sum(len(answer) - len(kept(answer)) for answer in answers)
        print(f"{source}, left out as short or repetitive: {left_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
