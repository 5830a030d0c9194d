"""Estimates the speedup by draft tokens: replays answers on measured step times.

`python -m issun.benchmarks.drafts BUNDLE [--records FILE] [--text FILE] [--steps BUNDLE]` measures
the time of a step over 1 to 16 tokens, and then replays answers as if the model generated them:
draft tokens are accepted as long as they equal the answer's. With `--steps`, the times are those of
another bundle, for instance a larger one.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from issun.runtime import Model
from issun.runtime.decoding.drafts import MAX_DRAFT, Drafts, Predictions
from issun.runtime.files import read_text
from issun.runtime.text.turn import Turn

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


def replay(
    trace: Trace, costs: Sequence[float], row: float, predictions: Predictions | None = None
) -> float:
    """The speedup: time of the answer's decode steps without drafts, divided by that with drafts.

    `costs[n]` is the time of a step over one token and n draft tokens. `predictions` are those of
    the conversation so far.
    """
    drafts, answer = Drafts(trace.prompt, row, predictions), trace.answer
    likeliest = trace.likeliest or [-1] * len(answer)  # no id: never accepted
    spent, at = 0.0, 0  # the first token comes from the prompt
    drafts.predict(likeliest[0])
    drafts.accept(answer[0])
    while at < len(answer) - 1:
        # The draft is not limited by the end of the answer, which is unknown.
        spent += costs[len(drafts.draft(MAX_DRAFT))]
        accepted = True
        while accepted and at < len(answer) - 1:
            at += 1
            drafts.predict(likeliest[at])
            accepted = drafts.accept(answer[at])
    return (len(answer) - 1) * costs[0] / spent


def replay_all(
    conversation: Iterable[Trace], costs: Sequence[float], row: float
) -> Iterator[tuple[Trace, float]]:
    """Yield each trace that is neither short nor repetitive, with its speedup."""
    predictions = Predictions()
    for trace in conversation:
        if len(trace.answer) >= _MIN_TOKENS and trace.distinct >= _MIN_DISTINCT:
            yield trace, replay(trace, costs, row, predictions)


def step_costs(model: Model) -> list[float]:
    """Seconds of a step over 1, 2, … tokens after 256 tokens of context, medians of 9."""
    ids = [i % model.manifest.tokens.pieces for i in range(7, 7 + _DEPTH + MAX_DRAFT + 1)]
    depth = min(_DEPTH, model.decoder.n_positions - MAX_DRAFT - 1)
    cache = model.new_cache()
    model.decoder.prefill(cache, ids[:depth])
    seconds: list[list[float]] = [[] for _ in range(MAX_DRAFT + 1)]
    for _ in range(_ROUNDS):
        for draft, times in enumerate(seconds):
            started = time.perf_counter()
            model.decoder.forward(cache, [ids[depth : depth + 1 + draft]], range(draft + 1))
            times.append(time.perf_counter() - started)
            cache.rewind(depth)
    return [median(times) for times in seconds]


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


def main() -> int:
    """Measure as the command line says, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, prog="drafts")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=Path, metavar="BUNDLE", help="time the steps of this one")
    parser.add_argument("--kv-cache", help="float32 or int8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    parser.add_argument("--records", type=Path, help="JSONL: instruction, input, output")
    parser.add_argument("--text", type=Path, help="one paragraph a line")
    args = parser.parse_args()
    options = {"threads": args.threads, "kv_cache": args.kv_cache, "trust": args.trust}
    with Model.load(args.steps or args.bundle, **options) as model:
        row = model.decoder.row_cost
        if row is None:
            print(
                f"{args.steps or args.bundle}: {model.manifest.precision.name} uses no drafts",
                file=sys.stderr,
            )
            return 2
        costs = step_costs(model)
    shown = ", ".join(f"{n}: {costs[n - 1] * 1e3:.1f} ms" for n in (1, 2, 4, 8, MAX_DRAFT + 1))
    print(f"step time by number of tokens: {shown}; one more row counts as {row:.3f}")
    found: dict[str, list[list[Trace]]] = {}
    with Model.load(args.bundle, **options) as model:
        if args.records:
            records = [json.loads(line) for line in read_text(args.records).splitlines()]
            found["records"] = [[trace] for trace in traces(model, records)]
            messages = [r["instruction"] for r in records if len(r["instruction"]) <= _MAX_MESSAGE]
            found["chat"] = list(conversations(model, messages, _CONVERSATIONS))
        if args.text:
            paragraphs = read_text(args.text).splitlines()
            found["text"] = [[trace] for trace in traces(model, quoting(paragraphs))]
    for source, answers in found.items():
        kept = [pair for answer in answers for pair in replay_all(answer, costs, row)]
        for quotes in (True, False):
            gains = [gain for trace, gain in kept if (trace.quoted >= _MIN_QUOTED) is quotes]
            print(describe(f"{source}, {'quoting' if quotes else 'other'} answers", gains))
        left_out = sum(map(len, answers)) - len(kept)
        print(f"{source}, left out as short or repetitive: {left_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
