"""One stream against many: tokens a second that `issun serve` gives to its clients.

`python -m issun.benchmarks.streams BUNDLE [--streams 16] [--tokens 200] [--rounds 7]` starts
`issun serve`, with what other options are given, on a free port and asks it in turn by one client
and by many at once, each with a prompt of its own. What counts is all new tokens by the time from
the first request to the last token, so reading the prompts is in it.
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
    """`issun serve` with `options` on a free port; gives host and port.

    Raises BenchError when it does not start.
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


def _netloc(said: Iterable[str]) -> str:
    """Where the server answers, which it says behind what else it may have to say."""
    line = ""
    for line in said:
        if address := re.search(r"http://\S+", line):
            return urlsplit(address[0]).netloc
    raise BenchError("The server does not start: {reason}", reason=line.strip())


def answer(netloc: str, number: int, tokens: int) -> int:
    """Stream `tokens` tokens of one answer; gives how many the server says that it made."""
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
        raise BenchError("A stream ended without its usage: {last}", last=last.decode()[:200])
    return int(found["usage"]["completion_tokens"])


def rate(netloc: str, numbers: Sequence[int], tokens: int) -> float:
    """New tokens a second of one client at once for each of the prompts with these numbers."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        started = time.perf_counter()
        made = sum(pool.map(lambda number: answer(netloc, number, tokens), numbers))
        return made / (time.perf_counter() - started)


def _take(numbers: Iterator[int], count: int) -> list[int]:
    return list(itertools.islice(numbers, count))


class Ratios:
    """Prints the tokens a second of one and of `many` in every round, and the medians."""

    def __init__(self, many: str) -> None:
        self._name = many
        self._rounds: list[tuple[float, float]] = []

    def add(self, one: float, many: float) -> None:
        """Note and print a round."""
        self._rounds.append((one, many))
        self._print(f"round {len(self._rounds)}", one, many, many / one)

    def conclude(self) -> None:
        """Print the medians and how far the rounds were apart."""
        ones, manies = zip(*self._rounds, strict=True)
        ratios = [many / one for one, many in self._rounds]
        self._print("median", median(ones), median(manies), median(ratios))
        print(f"of the rounds {min(ratios):.2f} to {max(ratios):.2f} times")

    def _print(self, title: str, one: float, many: float, times: float) -> None:
        print(
            f"{title}: one {one:.1f} tok/s, {self._name} {many:.1f} tok/s, {times:.2f} times",
            flush=True,
        )


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200, help="of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    args, options = parser.parse_known_args()
    with served(args.bundle, ["--slots", str(args.streams), *options]) as netloc:
        new = itertools.count()  # no prompt comes twice: the server would not read it again
        ratios = Ratios(f"{args.streams} streams")
        rate(netloc, _take(new, args.streams), 2)  # the first use of memory is not measured
        for _ in range(args.rounds):
            ratios.add(
                rate(netloc, _take(new, 1), args.tokens),
                rate(netloc, _take(new, args.streams), args.tokens),
            )
        ratios.conclude()


if __name__ == "__main__":
    main()
