"""Measures servers with the OpenAI API: TTFT, ITL and throughput by number of concurrent clients.

Servers and numbers of clients take turns in every round, so that all see the same machine.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from statistics import fmean, median

import msgspec

from issun.benchmarks.errors import one_line
from issun.benchmarks.openai_stream import Answer, Server
from issun.runtime.decoding.latency import Percentiles, percentiles

PROMPT = "第{number}章。昔々あるところに、おじいさんとおばあさんが住んでいました。"
CONCURRENCY, ROUNDS = (1, 2, 4, 8), 3


class Level(msgspec.Struct, kw_only=True):
    """A server with a number of concurrent clients; times in seconds, of complete answers alone.

    `ttft` is the time to the first chunk of text, `itl` the time between two chunks, `tpot` the
    mean time per token after the first chunk, which has as many as the others. `throughput` is the
    median over the rounds of new tokens per second of all clients together, from the first request
    to the last text. `counted` says whether tokens are the server's usage or chunks, which may
    hold several.
    """

    url: str
    model: str
    concurrency: int
    requests: int
    errors: int
    first_error: str
    new_tokens: int
    chunks: int
    counted: str  # usage or chunks
    ttft: Percentiles | None
    itl: Percentiles | None
    tpot: float | None
    throughput: float | None


class ServerResults(msgspec.Struct, kw_only=True):
    """A measurement of servers; `new_tokens` is the number that each answer asks for."""

    date: str
    issun: str
    new_tokens: int
    rounds: int
    notes: list[str]
    levels: list[Level]


class _Clients:
    """A number of concurrent clients of a server, and the answers that they have got."""

    def __init__(self, server: Server, number: int) -> None:
        self.server, self.number = server, number
        self._answers: list[Answer] = []
        self._rates: list[float] = []

    def run(self, prompts: Iterator[str], tokens: int) -> None:
        """Let each client ask for one answer, all at the same time."""
        answers = [Answer(error="no answer") for _ in range(self.number)]

        def ask(index: int, prompt: str) -> None:
            answers[index] = self.server.answer(prompt, tokens)

        threads = [  # daemons, for which Ctrl-C does not wait
            threading.Thread(target=ask, args=each, daemon=True)
            for each in enumerate(itertools.islice(prompts, self.number))
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._answers += answers
        if complete := [answer for answer in answers if not answer.error]:
            seconds = max(answer.chunks[-1] for answer in complete) - started
            self._rates.append(sum(answer.new_tokens for answer in complete) / seconds)

    def level(self) -> Level:
        """What has been measured so far."""
        complete = [answer for answer in self._answers if not answer.error]
        failed = [answer.error for answer in self._answers if answer.error]
        gaps = [b - a for answer in complete for a, b in pairwise(answer.chunks)]
        per_token = [
            fmean(b - a for a, b in pairwise(answer.chunks))
            * (len(answer.chunks) / answer.new_tokens)
            for answer in complete
            if answer.new_tokens > 1 and len(answer.chunks) > 1
        ]
        return Level(
            url=self.server.url,
            model=one_line(self.server.model),
            concurrency=self.number,
            requests=len(self._answers),
            errors=len(failed),
            first_error=failed[0] if failed else "",
            new_tokens=sum(answer.new_tokens for answer in complete),
            chunks=sum(len(answer.chunks) for answer in complete),
            counted="chunks" if any(a.tokens is None for a in complete) else "usage",
            ttft=percentiles([answer.chunks[0] - answer.started for answer in complete]),
            itl=percentiles(gaps),
            tpot=fmean(per_token) if per_token else None,
            throughput=median(self._rates) if self._rates else None,
        )


def measure(
    servers: Sequence[Server],
    *,
    concurrency: Sequence[int],
    rounds: int,
    tokens: int,
    report: Callable[[str], object],
    store: Callable[[ServerResults], object] = lambda results: None,
) -> ServerResults:
    """Measure all servers with all numbers of clients; every prompt is new.

    `store` is given the results before the first measurement and after each.
    """
    numbers = itertools.count(time.time_ns() // 10**9 % 10**6 * 1000)  # servers cache prompts
    prompts = (PROMPT.format(number=number) for number in numbers)
    clients = [_Clients(server, number) for number in concurrency for server in servers]

    def results(rounds: int) -> ServerResults:
        levels = [each.level() for server in servers for each in clients if each.server is server]
        return ServerResults(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            issun=version("issun"),
            new_tokens=tokens,
            rounds=rounds,
            notes=[text for server in servers for text in _notes(server, levels, tokens)],
            levels=levels,
        )

    store(results(0))
    for number in range(1, rounds + 1):
        for each in clients:
            report(f"round {number} of {rounds}: {each.server.url}, {each.number} clients")
            each.run(prompts, tokens)
            store(results(number))
    return results(rounds)


def _notes(server: Server, levels: Sequence[Level], asked: int) -> Iterator[str]:
    """What makes a server's figures differ from those of others."""
    url, own = server.url, [level for level in levels if level.url == server.url]
    if "ignore_eos" in server.refused:
        yield f"{url} refuses ignore_eos: its answers may be shorter than asked for."
    if any(level.requests and level.counted == "chunks" for level in own):
        yield f"{url} reports no usage: its tokens are counted as chunks."
    tokens = sum(level.new_tokens for level in own)
    if not tokens:
        return
    mean = round(tokens / sum(level.requests - level.errors for level in own), 1)
    if mean < asked:
        yield (
            f"{url}: answers have fewer tokens than asked for ({mean:g} of {asked} on average), "
            "which raises the share of prefill in the throughput."
        )
    per_chunk = round(tokens / sum(level.chunks for level in own), 1)
    if per_chunk >= 1.5:  # less is text that a server holds back until a character is whole
        yield f"{url}: chunks hold about {per_chunk:g} tokens, and ITL is the time between chunks."


def table(results: ServerResults) -> list[list[str]]:
    """The header and a row for each server and number of clients; times in milliseconds."""
    rows = [
        [
            *("server", "model", "clients", "answers", "errors", "TTFT p50", "p90", "p99"),
            *("ITL p50", "p90", "p99", "TPOT", "tokens/s"),
        ]
    ]
    for level in results.levels:
        values = [*_values(level.ttft), *_values(level.itl), level.tpot]
        rows.append(
            [level.url, level.model, str(level.concurrency)]
            + [str(level.requests - level.errors), str(level.errors)]
            + ["-" if value is None else f"{value * 1e3:,.1f}" for value in values]
            + ["-" if level.throughput is None else f"{level.throughput:,.1f}"]
        )
    return rows


def _values(found: Percentiles | None) -> Sequence[float | None]:
    return (None, None, None) if found is None else (found.p50, found.p90, found.p99)


def terminal(results: ServerResults) -> str:
    """The table with aligned columns, the notes, and the first error of each row that has any."""
    rows = table(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{results.date[:10]}: answers of {results.new_tokens} tokens to short Japanese prompts, "
        f"{results.rounds} rounds; times in milliseconds",
        "",
    ]
    for row in rows:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join([*texts, *numbers]))
    return "\n".join([*lines, *_remarks(results)])


def markdown(results: ServerResults) -> str:
    """The table in Markdown, with the notes below it."""
    header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table(results)]
    lines = [header, ["---"] * 2 + ["--:"] * (len(header) - 2), *rows]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in lines), *_remarks(results)])


def _remarks(results: ServerResults) -> Iterator[str]:
    failed = [level for level in results.levels if level.first_error]
    if results.notes or failed:
        yield ""
    yield from results.notes
    for level in failed:
        failures = f"{level.errors} errors, the first: {level.first_error}"
        yield f"{level.url}, {level.concurrency} clients: {failures}"
