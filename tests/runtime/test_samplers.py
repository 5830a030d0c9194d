"""Top-n-sigma, dynamic temperature, XTC, Mirostat 2 and their place in the order, by hand."""

from __future__ import annotations

import math

import pytest

from issun.runtime import ParameterError, SamplingParams
from issun.runtime.decoding import filters
from tests.runtime.samplers import MASKED, alive, of, probabilities_of, sampler, vector


def test_top_n_sigma_measures_from_the_largest_logit() -> None:
    # 1, 3, 5, 7: the mean is 4, the variance (9 + 1 + 1 + 9) / 4 = 5, sigma 2.236.
    logits = vector(1, 3, 5, 7)
    assert filters.top_n_sigma_ids(logits, 0.8).tolist() == [3]  # at least 5.21
    assert filters.top_n_sigma_ids(logits, 1).tolist() == [2, 3]  # 4.76
    assert filters.top_n_sigma_ids(logits, 2).tolist() == [1, 2, 3]  # 2.53


def test_top_n_sigma_ignores_masked_ids() -> None:
    logits = vector(1, MASKED, 3, 5, MASKED, 7)
    assert filters.top_n_sigma_ids(logits, 1).tolist() == [3, 5]
    assert filters.top_n_sigma_ids(vector(MASKED, 2), 1).tolist() == [1]


def test_dynamic_temperature_follows_the_normalized_entropy() -> None:
    # Entropy of 1/2, 1/4, 1/8, 1/8 is 1.75 bits of 2, so 0.875 of the way from 0.5 to 1.5.
    logits = of(0.5, 0.25, 0.125, 0.125)
    assert filters.dynamic_temperature(logits, 1, 0.5, 1) == pytest.approx(1.375)
    assert filters.dynamic_temperature(logits, 1, 0.5, 2) == pytest.approx(0.5 + 0.765625)
    # The lower end is at least 0: 0.875 of the way from 0 to 3.
    assert filters.dynamic_temperature(logits, 1, 2, 1) == pytest.approx(2.625)


def test_dynamic_temperature_counts_only_ids_that_are_left() -> None:
    assert filters.dynamic_temperature(vector(2, MASKED, 2, MASKED), 1, 0.5, 1) == pytest.approx(
        1.5
    )
    assert filters.dynamic_temperature(vector(MASKED, 3), 1, 0.5, 1) == 1
    # The second id has no probability left in float32, but counts.
    assert filters.dynamic_temperature(vector(0, -200), 1, 0.5, 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.5, [0, 1, 2, 3]),  # no id reaches it
        (0.35, [0, 1, 2, 3]),  # only one does
        (0.25, [1, 2, 3]),
        (0.15, [2, 3]),
        (0.05, [3]),
    ],
)
def test_xtc_keeps_the_least_likely_of_the_top_choices(threshold: float, kept: list[int]) -> None:
    assert alive(filters.exclude_top_choices(of(0.4, 0.3, 0.2, 0.1), threshold)) == kept


def test_xtc_keeps_one_of_equals() -> None:
    assert alive(filters.exclude_top_choices(of(0.25, 0.25, 0.25, 0.25), 0.1)) == [0]


@pytest.mark.parametrize(
    ("bits", "kept"),
    [(0.5, [0]), (1.01, [0]), (2.01, [0, 1]), (2.99, [0, 1]), (3.01, [0, 1, 2, 3])],
)
def test_mirostat_truncates_by_surprise(bits: float, kept: list[int]) -> None:
    # The surprises are 1, 2, 3 and 3 bits; the likeliest id is always kept.
    assert alive(filters.keep_low_surprise(of(0.5, 0.25, 0.125, 0.125), bits)) == kept
    assert alive(filters.keep_low_surprise(of(0.5, 0.25, 0.125, 0.125), -7)) == [0]


def test_surprise() -> None:
    assert filters.surprise(of(0.5, 0.25, 0.125, 0.125), 2) == pytest.approx(3)
    assert filters.surprise(vector(5, MASKED), 0) == 0


def test_mirostat_adjusts_the_largest_surprise() -> None:
    logits = of(0.5, 0.25, 0.125, 0.125)
    one = sampler(
        0.9, 0.9, 0.1, rows=4, eos=None, temperature=1, banned_ids=(), mirostat=2,
        mirostat_tau=1, mirostat_eta=0.5,
    )  # fmt: skip
    # At first up to 2 bits: 2/3 and 1/3. The second has a surprise of log2 3, 0.585 too many.
    assert one.sample(logits, [], []) == 1
    # Now up to 2 - 0.585 / 2 = 1.71 bits: only the first is left, with a surprise of 0.
    assert one.sample(logits, [], [1]) == 0
    # Now up to 1.71 + 0.5 = 2.21 bits.
    assert one.sample(logits, [], [1, 0]) == 0
    mu = 2 - 0.5 * (math.log2(3) - 1) + 0.5 - 0.5 * (math.log2(1.5) - 1)
    assert one._max_surprise == pytest.approx(mu)


def test_mirostat_starts_anew_with_each_answer() -> None:
    params = {"rows": 4, "eos": None, "temperature": 1, "banned_ids": (), "mirostat": 2}
    assert sampler(**params)._max_surprise == 10  # type: ignore[arg-type]


def test_top_n_sigma_comes_before_top_k() -> None:
    # The deviation is that of all four logits, 2.236, not that of the two that top-k keeps.
    one = sampler(rows=4, eos=None, banned_ids=(), temperature=1, top_n_sigma=0.95, top_k=2)
    assert probabilities_of(one, vector(1, 3, 5, 7)) == [0, 0, 0.1192, 0.8808]


def test_dynamic_temperature_replaces_the_temperature() -> None:
    # Two equal ids after top-k: the entropy is the highest, so the temperature is 2, not 1.
    one = sampler(
        rows=4, eos=None, banned_ids=(), temperature=1, dynatemp_range=1, top_k=2, typical_p=1
    )
    assert probabilities_of(one, vector(3, 3, 0, 0)) == [0.5, 0.5, 0, 0]
    logits = of(0.5, 0.25, 0.125, 0.125)
    fixed = sampler(rows=4, eos=None, banned_ids=(), temperature=1.375)
    dynamic = sampler(rows=4, eos=None, banned_ids=(), temperature=1, dynatemp_range=0.5)
    assert probabilities_of(dynamic, logits) == probabilities_of(fixed, logits)


def test_xtc_sees_what_the_other_filters_left() -> None:
    # After top-p: 4/7 and 3/7, both of at least 0.42; before it only the first id was.
    one = sampler(
        0.0, rows=4, eos=None, banned_ids=(), temperature=1, top_p=0.6, xtc_probability=1,
        xtc_threshold=0.42,
    )  # fmt: skip
    assert probabilities_of(one, of(0.4, 0.3, 0.2, 0.1)) == [0, 1, 0, 0]


def test_xtc_is_applied_with_its_probability_and_draws_one_number_more() -> None:
    logits = of(0.4, 0.3, 0.2, 0.1)
    settings = {"rows": 4, "eos": None, "banned_ids": (), "temperature": 1, "xtc_probability": 0.5}
    applied = sampler(0.49, 0.0, xtc_threshold=0.25, **settings)  # type: ignore[arg-type]
    assert applied.sample(logits, [], []) == 1
    left_out = sampler(0.5, 0.0, xtc_threshold=0.25, **settings)  # type: ignore[arg-type]
    assert left_out.sample(logits, [], []) == 0


@pytest.mark.parametrize(
    "one", [{"xtc_probability": 0.5}, {"dynatemp_range": 0.5}, {"mirostat": 2}]
)
def test_what_greedy_decoding_would_ignore_is_refused(one: dict[str, float]) -> None:
    ((name, value),) = one.items()
    with pytest.raises(ParameterError, match=f"{name} is {value!r}, .* at temperature 0"):
        SamplingParams(temperature=0, **one)  # type: ignore[arg-type]
    assert SamplingParams(temperature=0.1, **one)  # type: ignore[arg-type]
    assert SamplingParams(temperature=0, top_n_sigma=1, dry_multiplier=1)  # these change the order
