"""What lookup gains: real answers, replayed token by token on measured step costs.

`python -m issun.benchmarks.lookup BUNDLE [--records FILE] [--text FILE]` measures what a step over
1 to 16 tokens takes in the bundle, and then goes through answers as if the model drew them: a draft
is accepted as far as the answer has the same tokens. FILE is JSONL of instruction, input, output;
from the paragraphs of a text it makes answers that quote their input (a sentence is picked out, a
word is replaced). Answers that loop (less than 0.7 of their 4-grams are distinct) do not count.
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
from issun.runtime.files import read_text
from issun.runtime.lookup import MAX_DRAFT, PromptLookup, row_cost
from issun.runtime.prefix import common_prefix

_DEPTH, _ROUNDS = 256, 9  # tokens of context, and measurements of each step
_SHORTEST, _DISTINCT, _QUOTING = 16, 0.7, 0.5


@dataclass(frozen=True, slots=True)
class Trace:
    """A prompt and the answer to it, as ids."""

    prompt: Sequence[int]
    answer: Sequence[int]

    @property
    def distinct(self) -> float:
        """The share of the answer's 4-grams that come once; little where a text loops."""
        grams = list(_grams(self.answer))
        return len(set(grams)) / len(grams) if grams else 0.0

    @property
    def quoted(self) -> float:
        """The share of the answer's tokens that lie in a run of 4 which the prompt has too."""
        known, inside = set(_grams(self.prompt)), set[int]()
        for start, gram in enumerate(_grams(self.answer)):
            if gram in known:
                inside.update(range(start, start + 4))
        return len(inside) / len(self.answer)


def _grams(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return zip(*(ids[i:] for i in range(4)), strict=False)


def replay(trace: Trace, costs: Sequence[float], row: float) -> float:
    """Time of the answer's steps without lookup, divided by that with it.

    `costs[n]` is the time of a step that reads a token and a draft of n.
    """
    lookup, answer = PromptLookup(trace.prompt, row), trace.answer
    spent, at = 0.0, 0  # the first token comes from the prompt
    while at < len(answer) - 1:
        lookup.add(answer[at])
        draft = lookup.draft(MAX_DRAFT)  # nobody knows where the answer will end
        spent += costs[len(draft)]
        accepted = common_prefix(draft, answer[at + 1 :])
        for token in draft[:accepted]:
            lookup.add(token)
        if draft:
            lookup.update(len(draft), accepted)
        at += 1 + accepted
    return (len(answer) - 1) * costs[0] / spent


def step_costs(model: Model) -> list[float]:
    """Seconds of a step over 1, 2, … tokens behind 256 others, each the median of 9."""
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
    """Records whose answers quote: a sentence picked out, the paragraph with a word replaced."""
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
    """The records as ids in the bundle's template, as far as they fit its context."""
    end = [] if model.manifest.tokens.eos is None else [model.manifest.tokens.eos]
    for record in records:
        prompt = model.prompt(record["instruction"], record.get("input"))
        answer = model.tokenizer.encode(record["output"]) + end
        if len(answer) >= _SHORTEST and len(prompt) + len(answer) <= model.decoder.n_positions:
            yield Trace(prompt, answer)


def describe(name: str, gains: Sequence[float]) -> str:
    """One line: how many, the mean gain, the least."""
    if not gains:
        return f"{name:<25} none"
    mean = len(gains) / sum(1 / gain for gain in gains)  # as many tokens of each
    return f"{name:<25}{len(gains):5}: {mean:.2f} times as fast, at least {min(gains):.3f}"


def main() -> int:
    """Read the command line, measure, print."""
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
        row = row_cost(model.manifest.precision.name)
        if row is None:
            print(f"{args.bundle}: {model.manifest.precision.name} has no lookup", file=sys.stderr)
            return 2
        costs = step_costs(model)
        shown = (1, 2, 4, 8, MAX_DRAFT + 1)
        print("step over tokens:", ", ".join(f"{n}: {costs[n - 1] * 1e3:.1f} ms" for n in shown))
        found: dict[str, list[Trace]] = {}
        if args.records:
            lines = read_text(args.records).splitlines()
            found["records"] = list(traces(model, map(json.loads, lines)))
        if args.text:
            paragraphs = read_text(args.text).splitlines()
            found["text"] = list(traces(model, quoting(paragraphs)))
    for source, all_traces in found.items():
        kept = [trace for trace in all_traces if trace.distinct >= _DISTINCT]
        for quotes in (True, False):
            gains = [
                replay(trace, costs, row) for trace in kept if (trace.quoted >= _QUOTING) is quotes
            ]
            name = f"{source}, {'quoting' if quotes else 'other'} answers"
            print(describe(name, gains))
        print(f"{source}, left out since they loop: {len(all_traces) - len(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
