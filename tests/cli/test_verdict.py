"""The paragraph that says what a run has found, from invented results."""

from __future__ import annotations

import pytest

from issun.benchmarks.energy import Joules
from issun.benchmarks.measured import EngineResult, Memory, Results
from issun.cli.verdict import verdict
from tests.benchmarks.test_results import engine, made_up


def measured(**changes: object) -> EngineResult:
    """10 tokens/s of 620 MB each on a machine that reads 10 GB/s, in two rounds of two tokens."""
    values = {
        "samples": {"prefill-512": [3.0, 4.0], "decode-128": [0.1, 0.1, 0.1, 0.1]},
        "weight_bytes": 620_000_000,
        "memory": {256: Memory(peak=9), 1000: Memory(peak=1_320_000_000)},
        "rounds": 2,
    }
    return engine("b4", **(values | changes))


def results(*engines: EngineResult) -> Results:
    found = made_up(*engines)
    found.new_tokens = 2
    return found


def test_memory_bound() -> None:
    assert list(verdict(results(measured()))) == [
        "b4: 10.0 tokens/s after a 128-token prompt (ITL p50 100 ms). Memory-bound: 62% of what "
        "this machine can read. The first token of a 512-token prompt takes 3.50 s (TTFT). It "
        "needs 1.32 GB of memory with 1,000 tokens of context."
    ]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (600_000_000, "Memory-bound: 60% of what this machine can read."),
        (590_000_000, "Compute-bound: 59% of what this machine can read, so the CPU sets the"),
        (1_100_000_000, "The bandwidth was measured too low to say what limits decoding."),
    ],
)
def test_what_limits_the_speed(weights: int, expected: str) -> None:
    (text,) = verdict(results(measured(weight_bytes=weights)))
    assert expected in text
    assert text.count("bound:") == (weights < 10**9)


def test_nothing_is_said_that_was_not_measured() -> None:
    assert list(verdict(results(measured(samples={}, memory={}), engine(status="failed")))) == []
    (text,) = verdict(results(measured(weight_bytes=0, memory={})))
    assert "machine" not in text
    assert " J " not in text


def test_rounds_that_differ_and_a_single_one() -> None:
    """A median of 0.1 s and one of 0.15 s."""
    samples = {"decode-128": [0.1, 0.1, 0.15, 0.15]}
    (text,) = verdict(results(measured(samples=samples)))
    assert text.endswith("The rounds differ by 50%: close other programs and repeat.")
    (text,) = verdict(results(measured(samples={"decode-128": [0.1, 0.9]}, rounds=1)))
    assert text.endswith("This is from one round; --rounds 3 shows how well it repeats.")


def test_energy_is_named_only_where_it_could_be_read() -> None:
    (text,) = verdict(results(measured(energy={256: Joules(5), 1000: Joules(1.234)})))
    assert "A token takes 1.23 J above idle (CPU package)." in text
    (text,) = verdict(results(measured(energy={1000: Joules()})))
    assert "J above idle" not in text


def test_in_japanese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSUN_LANG", "ja")
    assert list(verdict(results(measured()))) == [
        "b4: 128 トークンのプロンプトの後、毎秒 10.0 トークンを生成します（ITL p50 100 ms）。"
        "速度を決めているのはメモリー帯域です。このマシンが読める量の 62% を読んでいます。"
        "512 トークンのプロンプトでは、最初のトークンまで 3.50 秒かかります（TTFT）。"
        "コンテキストが 1,000 トークンのとき、メモリーを 1.32 GB 使います。"
    ]
