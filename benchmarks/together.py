"""Measures the throughput of `Model.generate_many` with one prompt and with many.

`python -m issun.benchmarks.together BUNDLE [--prompts 16] [--tokens 200] [--rounds 7]` alternates
between one prompt and a batch of many. The throughput is the number of new tokens divided by the
time of the call, so it includes prefill.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median

from issun.benchmarks.servers import PROMPT
from issun.runtime import Model, SamplingParams


class Ratios:
    """Prints the tokens per second of `one` and of `many` in every round, and the medians."""

    def __init__(self, many: str, one: str = "one") -> None:
        self._many, self._one = many, one
        self._rounds: list[tuple[float, float]] = []

    def add(self, one: float, many: float) -> None:
        """Add and print a round."""
        self._rounds.append((one, many))
        self._print(f"round {len(self._rounds)}", one, many, many / one)

    def conclude(self) -> None:
        """Print the medians and the range of the rounds."""
        ones, manies = zip(*self._rounds, strict=True)
        ratios = [many / one for one, many in self._rounds]
        self._print("median", median(ones), median(manies), median(ratios))
        print(f"range of the rounds: {min(ratios):.2f} to {max(ratios):.2f} times as fast")

    def _print(self, title: str, one: float, many: float, ratio: float) -> None:
        print(
            f"{title}: {self._one} {one:.1f} tok/s, {self._many} {many:.1f} tok/s, "
            f"{ratio:.2f} times as fast",
            flush=True,
        )


def rate(model: Model, numbers: Iterator[int], prompts: int, tokens: int) -> float:
    """New tokens per second for a batch of the next `prompts` prompts."""
    texts = [PROMPT.format(number=number) for number in islice(numbers, prompts)]
    params = [
        SamplingParams(max_new_tokens=tokens, min_new_tokens=tokens, seed=seed)
        for seed in range(prompts)
    ]
    started = time.perf_counter()
    answers = model.generate_many(texts, params, slots=prompts)
    return sum(a.timings.new_tokens for a in answers) / (time.perf_counter() - started)


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200, help="length of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    args = parser.parse_args()
    with Model.load(args.bundle, threads=args.threads, trust=args.trust) as model:
        numbers, ratios = count(), Ratios(f"{args.prompts} prompts")
        rate(model, numbers, args.prompts, 2)  # warm-up
        for _ in range(args.rounds):
            ratios.add(
                rate(model, numbers, 1, args.tokens),
                rate(model, numbers, args.prompts, args.tokens),
            )
        ratios.conclude()


if __name__ == "__main__":
    main()
