"""Measures the throughput of `issun serve` with one client and with many.

`python -m issun.benchmarks.streams BUNDLE [--streams 16] [--tokens 200] [--rounds 7]` starts
`issun serve` on a free port, passing on other options, and alternates between one client and many
concurrent clients, each with a different prompt. The throughput is the number of new tokens divided
by the time from the first request to the last token, so it includes prefill.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from statistics import median
from urllib.parse import urlsplit

from issun.benchmarks.errors import BenchError

PROMPT = "第{number}章。昔々あるところに、おじいさんとおばあさんが住んでいました。"
_HEADERS = {"Content-Type": "application/json"}


@contextmanager
def served(bundle: str, options: Sequence[str]) -> Iterator[str]:
    """Run `issun serve` with `options` on a free port; yields host and port.

    Raises BenchError if it does not start.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "issun.cli.main",
        "serve",
        bundle,
        "--port",
        "0",
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield _netloc(process.stderr or ())
        finally:
            process.terminate()


def _netloc(output: Iterable[str]) -> str:
    """The server's host and port, from the first line of its output that has a URL."""
    line = ""
    for line in output:
        if address := re.search(r"http://\S+", line):
            return urlsplit(address[0]).netloc
    raise BenchError("The server did not start: {reason}", reason=line.strip())


def answer(netloc: str, number: int, tokens: int) -> int:
    """Stream an answer of `tokens` tokens; returns the number that the server reports."""
    body = {
        "prompt": PROMPT.format(number=number),
        "min_tokens": tokens,
        "max_tokens": tokens,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = HTTPConnection(netloc)
    connection.request("POST", "/v1/completions", json.dumps(body), _HEADERS)
    response = connection.getresponse()
    last = b"{}"
    for line in response:
        if line.startswith(b"data: {"):
            last = line[6:]
    connection.close()
    found = json.loads(last)
    if not found.get("usage"):
        raise BenchError(
            "A stream ended without reporting its usage: {last}", last=last.decode()[:200]
        )
    return int(found["usage"]["completion_tokens"])


def rate(netloc: str, numbers: Sequence[int], tokens: int) -> float:
    """New tokens per second with one concurrent client for each of the prompt `numbers`."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        started = time.perf_counter()
        new_tokens = sum(pool.map(lambda number: answer(netloc, number, tokens), numbers))
        return new_tokens / (time.perf_counter() - started)


def _take(numbers: Iterator[int], count: int) -> list[int]:
    return list(itertools.islice(numbers, count))


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


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200, help="length of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    args, options = parser.parse_known_args()
    with served(args.bundle, ["--slots", str(args.streams), *options]) as netloc:
        new = itertools.count()  # every prompt is new, since the server caches prompts
        ratios = Ratios(f"{args.streams} streams")
        rate(netloc, _take(new, args.streams), 2)  # warm-up
        for _ in range(args.rounds):
            ratios.add(
                rate(netloc, _take(new, 1), args.tokens),
                rate(netloc, _take(new, args.streams), args.tokens),
            )
        ratios.conclude()


if __name__ == "__main__":
    main()
