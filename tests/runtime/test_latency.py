"""Percentiles by hand, and those of an answer's tokens."""

from __future__ import annotations

import pytest

from issun.runtime import Timings
from issun.runtime.decoding.latency import Percentiles, percentiles


def test_percentiles_by_hand() -> None:
    """Interpolated between neighbours: of 0 to 100 each is its own rank."""
    assert percentiles(list(range(100, -1, -1))) == Percentiles(50, 90, 99)
    assert percentiles([2.0]) == Percentiles(2, 2, 2)
    assert percentiles([1.0, 2.0]) == Percentiles(1.5, pytest.approx(1.9), pytest.approx(1.99))
    assert percentiles([]) is None


def test_the_latency_of_an_answer() -> None:
    """Tokens at 1, 2, 4 and 8 s; the last one belongs to a later segment."""
    timings = Timings(
        new_tokens=3, time_to_first_token=1.0, total_time=4.0, token_times=[1.0, 2.0, 4.0, 8.0]
    )
    assert timings.time_per_output_token == 1.5
    assert timings.inter_token_latency == Percentiles(1.5, pytest.approx(1.9), pytest.approx(1.99))
    assert timings.report() == {
        **{"prompt_tokens": 0, "reused_tokens": 0, "new_tokens": 3},
        **{"time_to_first_token": 1.0, "total_time": 4.0, "time_per_output_token": 1.5},
        "inter_token_latency": {"p50": 1.5, "p90": pytest.approx(1.9), "p99": pytest.approx(1.99)},
        "tokens_per_second": pytest.approx(2 / 3),
    }


def test_an_answer_of_one_token_has_no_latency_between_tokens() -> None:
    one = Timings(new_tokens=1, time_to_first_token=1.0, total_time=1.0, token_times=[1.0])
    assert one.time_per_output_token == 0
    assert one.inter_token_latency is None
    assert one.report()["inter_token_latency"] is None
