"""Estimates the speedup of prompt lookup decoding by replaying answers on measured step times.

`python -m issun.benchmarks.lookup BUNDLE [--records FILE] [--text FILE]` measures the time of a
step over 1 to 16 tokens, and then replays answers as if the model generated them: draft tokens are
accepted as long as they equal the answer's. Records are JSONL with instruction, input and output.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from issun.runtime import Model
from issun.runtime.decoding.lookup import MAX_DRAFT, PromptLookup
from issun.runtime.files import read_text
from issun.runtime.text.prefix import common_prefix

_DEPTH, _ROUNDS = 256, 9  # context in tokens, and measurements of each step
_MIN_TOKENS, _MIN_DISTINCT, _MIN_QUOTED = 16, 0.7, 0.5


@dataclass(frozen=True, slots=True)
class Trace:
    """The token ids of a prompt and its answer."""

    prompt: Sequence[int]
    answer: Sequence[int]

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


def replay(trace: Trace, costs: Sequence[float], row: float) -> float:
    """The speedup: time of the answer's decode steps without lookup, divided by that with lookup.

    `costs[n]` is the time of a step over one token and n draft tokens.
    """
    lookup, answer = PromptLookup(trace.prompt, row), trace.answer
    spent, at = 0.0, 0  # the first token comes from the prompt
    while at < len(answer) - 1:
        lookup.add(answer[at])
        draft = lookup.draft(MAX_DRAFT)  # not limited by the end of the answer, which is unknown
        spent += costs[len(draft)]
        accepted = common_prefix(draft, answer[at + 1 :])
        for token in draft[:accepted]:
            lookup.add(token)
        if draft:
            lookup.update(len(draft), accepted)
        at += 1 + accepted
    return (len(answer) - 1) * costs[0] / spent


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
        if len(answer) >= _MIN_TOKENS and len(prompt) + len(answer) <= model.decoder.n_positions:
            yield Trace(prompt, answer)


def describe(name: str, gains: Sequence[float]) -> str:
    """One line of output: number of answers, mean speedup, smallest speedup."""
    if not gains:
        return f"{name:<25} none"
    mean = len(gains) / sum(1 / gain for gain in gains)  # equal weight in tokens
    return f"{name:<25}{len(gains):5}: {mean:.2f} times as fast, at least {min(gains):.3f}"


def main() -> int:
    """Measure as the command line says, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, prog="lookup")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kv-cache", help="float32 or int8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    parser.add_argument("--records", type=Path, help="JSONL: instruction, input, output")
    parser.add_argument("--text", type=Path, help="one paragraph a line")
    args = parser.parse_args()
    with Model.load(
        args.bundle, threads=args.threads, kv_cache=args.kv_cache, trust=args.trust
    ) as model:
        row = model.decoder.row_cost
        if row is None:
            print(
                f"{args.bundle}: {model.manifest.precision.name} does not use prompt lookup",
                file=sys.stderr,
            )
            return 2
        costs = step_costs(model)
        shown = (1, 2, 4, 8, MAX_DRAFT + 1)
        times = ", ".join(f"{n}: {costs[n - 1] * 1e3:.1f} ms" for n in shown)
        print("step time by number of tokens:", times)
        found: dict[str, list[Trace]] = {}
        if args.records:
            lines = read_text(args.records).splitlines()
            found["records"] = list(traces(model, map(json.loads, lines)))
        if args.text:
            paragraphs = read_text(args.text).splitlines()
            found["text"] = list(traces(model, quoting(paragraphs)))
    for source, all_traces in found.items():
        kept = [trace for trace in all_traces if trace.distinct >= _MIN_DISTINCT]
        for quotes in (True, False):
            gains = [
                replay(trace, costs, row)
                for trace in kept
                if (trace.quoted >= _MIN_QUOTED) is quotes
            ]
            name = f"{source}, {'quoting' if quotes else 'other'} answers"
            print(describe(name, gains))
        print(f"{source}, left out as repetitive: {len(all_traces) - len(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
