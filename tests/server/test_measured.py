"""Latencies of the server: its own histograms, and what `issun bench run --url` measures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from issun.benchmarks import servers
from issun.benchmarks.openai_stream import Server
from tests.cli.conftest import issun
from tests.server.conftest import embedded_server


def value(text: str, name: str) -> float:
    found = re.search(rf"^{name} ([\d.e+-]+)$", text, re.M)
    assert found, name
    return float(found[1])


def test_every_token_is_in_a_histogram() -> None:
    """Two answers of 5 tokens and one of a single token, which has no time between tokens."""
    with embedded_server() as server:
        for tokens in (5, 5, 1):
            messages = [{"role": "user", "content": "山"}]
            body = {"messages": messages, "max_tokens": tokens, "ignore_eos": True}
            found = server.post("/v1/chat/completions", body).json()["issun"]
            assert (found["time_per_output_token"] > 0) == (tokens > 1)
        text = server.get("/metrics").text
    for name, count in (
        ("time_to_first_token", 3),
        ("inter_token_latency", 8),
        ("time_per_output_token", 2),
    ):
        assert value(text, f"issun_{name}_seconds_count") == count
        assert value(text, f"issun_{name}_seconds_sum") > 0
    # The same times, added up in two ways.
    tpot = value(text, "issun_time_per_output_token_seconds_sum")
    itl = value(text, "issun_inter_token_latency_seconds_sum")
    assert 4 * tpot == pytest.approx(itl)


@pytest.mark.parametrize("path", ["", "/v1/completions"])
def test_issuns_server_is_measured(path: str) -> None:
    with embedded_server() as server:
        found = servers.measure(
            [Server(server.url + path)],
            concurrency=[1, 2],
            rounds=2,
            tokens=6,
            report=lambda text: None,
        )
    assert found.notes == []
    for level, requests in zip(found.levels, (2, 4), strict=True):
        assert (level.requests, level.errors, level.counted) == (requests, 0, "usage")
        assert level.new_tokens == 6 * requests  # the end token does not end an answer
        assert level.ttft is not None
        assert level.itl is not None
        assert 0 < level.ttft.p50 <= level.ttft.p99
        assert 0 <= level.itl.p50 <= level.itl.p99
        assert level.throughput is not None
        assert level.throughput > 0


def test_the_command_prints_and_keeps_a_table(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    with embedded_server() as server:
        options = ("--url", server.url, "--concurrency", "1,2", "--rounds", "1", "-o", path)
        result = issun("bench", "run", *options, "--new-tokens", "4", "--format", "markdown")
        again = issun("bench", "run", *options)
    assert result.code == 0, result.err
    assert result.err == (
        f"round 1 of 1: {server.url}, 1 clients\nround 1 of 1: {server.url}, 2 clients\n"
        f"All measurements are in {path}.\n"
    )
    header, _, *rows = result.out.splitlines()
    assert header.startswith("| server | model | clients | answers | errors | TTFT p50 |")
    assert [row.split(" | ")[2:5] for row in rows] == [["1", "1", "0"], ["2", "2", "0"]]
    kept = json.loads(path.read_bytes())
    assert [level["concurrency"] for level in kept["levels"]] == [1, 2]
    assert (again.code, again.out) == (2, "")
    assert again.err == f"error: {path} exists: name another file with -o.\n"
