"""The benchmark of workers against one process and a server, on the embedded model."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from issun.benchmarks import batch
from issun.benchmarks.errors import BenchError
from issun.runtime.demonstration import bundle_folder
from tests.benchmarks.test_servers import Fake, Write, chunk, serving, usage

OPTIONS = ["--rows", "4", "--rounds", "2", "--workers", "1", "--threads", "1", "--slots", "2"]


def server(tokens: int) -> Fake:
    """A server whose answers have this many tokens."""

    def answer(body: dict[str, Any], write: Write) -> None:
        write(chunk("はい", "length"))
        write(usage(tokens))
        write("data: [DONE]\n\n")

    return Fake(answer)


def run(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    options = [*OPTIONS, "--tokens", "3", "--url", f"{url}/v1/completions"]
    monkeypatch.setattr(sys, "argv", ["name", str(bundle_folder(None)), *options])
    batch.main()


def test_all_three_answer_the_same_prompts_in_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = server(3)
    with serving(fake) as url:
        run(monkeypatch, url)
    lines = capsys.readouterr().out.splitlines()
    for other in ("generate_many", "server"):
        figures = rf"(round 1|round 2|median): {other} [\d.]+ tok/s, 1 workers of 1 threads "
        assert [line.split(":")[0] for line in lines if re.match(figures, line)] == [
            "round 1",
            "round 2",
            "median",
        ]
    _, *bodies = fake.bodies  # the first one finds out which fields the server accepts
    assert len({body["prompt"] for body in bodies}) == 8
    assert all(body["max_tokens"] == 3 for body in bodies)


def test_a_server_with_shorter_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(server(2)) as url, pytest.raises(BenchError, match="with 3 tokens: it reports 2"):
        run(monkeypatch, url)
