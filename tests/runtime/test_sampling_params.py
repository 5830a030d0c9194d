"""The ranges of the sampling parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ParameterError

BAD = [
    (
        "temperature",
        (-1, -1e-9, 100.1, math.nan, math.inf, True, "1", None),
        "from 0 to 100",
    ),
    ("top_k", (-1, 1.5, True, math.nan, None, "5"), "of at least 0"),
    ("top_p", (0, 2, -0.1, 1.0001, math.nan, math.inf, True), "above 0 and at most 1"),
    ("min_p", (-0.1, 1.1, math.nan, True), "from 0 to 1"),
    ("typical_p", (0, -1, 1.1, math.nan, True), "above 0 and at most 1"),
    ("repetition_penalty", (0, -1, 101, math.nan, math.inf), "above 0 and at most 100"),
    ("presence_penalty", (-101, 101, math.nan, math.inf), "from -100 to 100"),
    ("frequency_penalty", (-101, 101, math.nan, True), "from -100 to 100"),
    ("no_repeat_ngram_size", (-1, 2.0, True, None), "of at least 0"),
    ("top_n_sigma", (-1, 101, math.nan, True), "from 0 to 100"),
    ("dynatemp_range", (-0.1, 101, math.nan, None), "from 0 to 100"),
    ("dynatemp_exponent", (0, -1, math.nan), "above 0 and at most 100"),
    ("xtc_probability", (-0.1, 1.1, math.nan, True), "from 0 to 1"),
    ("xtc_threshold", (0, 0.51, math.nan), "above 0 and at most 0.5"),
    ("dry_multiplier", (-1, 101, math.nan, True), "from 0 to 100"),
    ("dry_base", (0.99, 101, math.nan), "from 1 to 100"),
    ("dry_allowed_length", (0, 1.5, True), "of at least 1"),
    ("dry_penalty_last_n", (-2, 1.5, True), "of at least -1"),
    ("mirostat", (1, 3, -1, True, "2", None), "it must be 0 (off) or 2"),
    ("mirostat_tau", (-1, 101, math.nan), "from 0 to 100"),
    ("mirostat_eta", (-1, 1.1, math.nan), "from 0 to 1"),
    ("max_new_tokens", (0, -5, 1.0, True, None), "of at least 1"),
    ("min_length", (-1, 1.0, True, None), "of at least 0"),
    ("min_new_tokens", (-1, 1.0, True), "of at least 0"),
    ("min_new_tokens", (101, 10**400), "at most max_new_tokens, which is 100"),
    ("logprobs", (-1, 0.5, True), "of at least 0"),
    ("seed", (-1, 2**64, 10**400, 1.0, True, "1"), "from 0 to 1844674407370955161"),
]


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [(name, value, bounds) for name, values, bounds in BAD for value in values],
)
def test_bad_value_is_named_with_its_range(name: str, value: object, bounds: str) -> None:
    with pytest.raises(ParameterError) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name} is {value!r}, ")
    assert bounds in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        {"temperature": 0},
        {"temperature": 100},
        {"top_k": 0},
        {"top_p": 1},
        {"top_p": 1e-9},
        {"min_p": 1},
        {"typical_p": 1e-9},
        {"repetition_penalty": 100},
        {"presence_penalty": -100},
        {"max_new_tokens": 1},
        {"min_new_tokens": 100},
        {"seed": 2**64 - 1},
        {"stop": ()},
        {"stop": ["a"]},
        {"xtc_threshold": 0.5},
        {"dry_base": 1},
        {"dry_sequence_breakers": ()},
        {"mirostat": 2},
        {"mirostat_tau": 0},
        {"logit_bias": {1: -math.inf}},
    ],
)
def test_ends_of_the_ranges_are_allowed(good: dict[str, Any]) -> None:
    params = SamplingParams(**good)
    assert getattr(params, next(iter(good))) == next(iter(good.values()))


@pytest.mark.parametrize("stop", ["。", ("",), (1,), ("a", None), None, 5, b"a"])
def test_stop_is_a_tuple_of_strings(stop: object) -> None:
    with pytest.raises(ParameterError) as caught:
        SamplingParams(stop=stop)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"stop is {stop!r}, ")


@pytest.mark.parametrize("bias", [{1: math.nan}, {1: math.inf}, {1: 1e39}, {1: True}, {1: "2"}])
def test_bad_bias_is_named(bias: dict[int, Any]) -> None:
    with pytest.raises(ParameterError) as caught:
        SamplingParams(logit_bias=bias)
    assert str(caught.value).startswith(f"logit_bias[1] is {bias[1]!r}, ")


@pytest.mark.parametrize(
    "ids", [{"banned_ids": ("a",)}, {"banned_ids": (-1,)}, {"logit_bias": {1.5: 1}}]
)
def test_ids_are_whole_numbers(ids: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(ids))):
        SamplingParams(**ids)


def test_numpy_numbers_are_numbers() -> None:
    params = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(3))
    assert (params.temperature, params.top_k) == (0.5, 3)
