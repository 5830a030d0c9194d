"""Comparing engines that were measured in different time windows."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks.block_design import TimedSamples, estimate_times
from issun.benchmarks.measured import EngineResult, Results, speed
from tests.benchmarks.test_results import engine, made_up

factors = st.floats(0.1, 10)


def test_a_single_window_gives_medians() -> None:
    found = estimate_times(
        {"a": TimedSamples([1, 5, 2], [0, 0, 0]), "b": TimedSamples([7, 9], [0, 0])}
    )
    assert found == {"a": pytest.approx(2), "b": pytest.approx(8)}


def test_a_slow_window_is_corrected() -> None:
    """b and c are equally fast: in c's only window, a also took twice as long."""
    found = estimate_times(
        {
            "a": TimedSamples([1, 2], [0, 1]),
            "b": TimedSamples([3], [0]),
            "c": TimedSamples([6], [1]),
        },
    )
    assert found["c"] == pytest.approx(found["b"])
    assert found["b"] / found["a"] == pytest.approx(3)
    assert found["a"] == pytest.approx(2**0.5)  # the geometric mean of the two windows


def test_a_window_counts_once_whatever_its_number_of_samples() -> None:
    """The window medians are 2 and 8: the geometric mean counts, not the median of all samples."""
    found = estimate_times({"a": TimedSamples([2, 1, 2, 3, 2, 8], [0, 0, 0, 0, 0, 1])})
    assert found == {"a": pytest.approx(4)}


def test_unconnected_windows_are_not_corrected() -> None:
    found = estimate_times({"a": TimedSamples([1, 1], [0, 0]), "b": TimedSamples([100], [1])})
    assert found == {"a": pytest.approx(1), "b": pytest.approx(100)}


@given(
    st.lists(factors, min_size=3, max_size=6),
    st.lists(factors, min_size=2, max_size=5),
    st.data(),
)
def test_ratios_are_recovered_from_incomplete_windows(
    own: list[float], slow: list[float], data: st.DataObject
) -> None:
    """The first engine is in all windows, the others in some, with three samples in each."""
    windows = [list(range(len(slow)))]
    windows += [
        data.draw(st.lists(st.sampled_from(windows[0]), min_size=1, unique=True)) for _ in own[1:]
    ]
    timed = {
        str(i): TimedSamples(
            [speed * slow[w] * spread for w in taken for spread in (1, 0.9, 1.1)],
            [w for w in taken for _ in range(3)],
        )
        for i, (speed, taken) in enumerate(zip(own, windows, strict=True))
    }
    found = [estimate_times(timed)[str(i)] for i in range(len(own))]
    for (one, other), (a, b) in zip(pairwise(found), pairwise(own), strict=True):
        assert one / other == pytest.approx(a / b, rel=1e-5)


def taken(name: str, seconds: list[float], windows: list[int]) -> EngineResult:
    return engine(name=name, samples={"decode-0": seconds}, windows={"decode-0": windows})


def test_results_use_the_estimate() -> None:
    found: Results = made_up(
        taken("a", [0.1, 0.2], [0, 1]), taken("b", [0.3], [0]), taken("c", [0.6], [1])
    )
    assert found.next_window() == 2
    assert made_up(engine()).next_window() == 0
    before = [speed(e, "decode-0") for e in found.engines]
    assert before == [pytest.approx(1 / median([0.1, 0.2])), pytest.approx(10 / 3), 10 / 6]
    found.settle()
    a, b, c = (speed(e, "decode-0") or 0 for e in found.engines)
    assert b == pytest.approx(c)
    assert a == pytest.approx(3 * b)


def test_an_engine_alone_keeps_its_median() -> None:
    found = made_up(taken("a", [1, 100, 2], [0, 1, 2]))
    found.settle()
    assert speed(found.engines[0], "decode-0") == 1 / 2


def test_an_engine_that_is_alone_in_its_windows_keeps_its_median() -> None:
    """It did not fit into memory with the two others, or used other threads."""
    found = made_up(
        taken("a", [1, 100, 2], [0, 1, 2]),
        taken("b", [2, 8], [3, 4]),
        taken("c", [4, 4], [3, 5]),
    )
    found.settle()
    a, b, c = (speed(each, "decode-0") or 0 for each in found.engines)
    assert a == 1 / 2
    assert b == pytest.approx(2 * c)
    assert "decode-0" not in found.engines[0].typical


def test_tests_that_are_not_interleaved_keep_their_median() -> None:
    found = made_up(engine(samples={"prefill-8": [1, 2, 9], "load": [1]}))
    found.settle()
    assert found.engines[0].typical == {}
    assert speed(found.engines[0], "prefill-8") == 4
