"""Filters and their order, with numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.runtime.decoding import filters, sampling
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.sampling import Sampler, SamplingParams, Vocabulary
from issun.runtime.errors import ParameterError, SamplingError
from tests.runtime.samplers import (
    EOS,
    MASKED,
    UNK,
    alive,
    of,
    probabilities_of,
    sampler,
    vector,
)


def test_ban() -> None:
    logits = vector(1, 2, 3)
    filters.ban(logits, [0, 2])
    assert logits.tolist() == [MASKED, 2, MASKED]


def test_add_bias() -> None:
    logits = vector(1, 2, 3, 4)
    filters.add_bias(logits, {1: -0.5, 3: 10})
    assert logits.tolist() == [1, 1.5, 3, 14]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = vector(4, -4, 0, 3, MASKED)
    filters.penalize_repetition(logits, [0, 1, 2, 4, 0, 0], 2.0)
    assert logits.tolist() == [2, -8, 0, 3, MASKED]


def test_presence_counts_once_and_frequency_every_time() -> None:
    logits = vector(5, 5, 5)
    filters.penalize_presence_and_frequency(logits, [0, 0, 0, 2], 1.0, 0.5)
    assert logits.tolist() == [5 - 1 - 1.5, 5, 5 - 1 - 0.5]


@pytest.mark.parametrize(
    ("seen", "size", "out"),
    [
        ([0, 1, 2, 0, 1], 3, [2]),  # "0 1" was followed by 2
        ([0, 1, 2, 0, 1], 2, [2]),
        ([0, 1, 0, 2, 0], 2, [1, 2]),
        ([3, 3], 2, [3]),
        ([3, 4], 1, [3, 4]),  # no token may repeat
        ([0, 1], 3, []),  # too short to hold a trigram
        ([], 1, []),
        ([0, 1, 2, 3], 3, []),
    ],
)
def test_no_repeat_ngram(seen: list[int], size: int, out: list[int]) -> None:
    logits = vector(1, 2, 3, 4, 5)
    filters.no_repeat_ngram(logits, seen, size)
    assert alive(logits) == [i for i in range(5) if i not in out]


def test_temperature_divides_differences() -> None:
    got = filters.scale_temperature(vector(1, 3, 2), 0.5)
    assert (got - got.max()).tolist() == [-4, 0, -2]


def test_tiny_temperature_neither_overflows_nor_divides_by_zero() -> None:
    got = filters.scale_temperature(vector(80, 100, 100, MASKED), 5e-324)
    assert filters.softmax(got).tolist() == [0, 0.5, 0.5, 0]
    assert got[3] == MASKED


def test_top_k() -> None:
    assert filters.top_k_ids(vector(1, 4, 2, 3), 2).tolist() == [1, 3]
    assert filters.top_k_ids(vector(1, 4, 2, 3), 4).tolist() == [0, 1, 2, 3]
    assert filters.top_k_ids(vector(1, 4, 2, 3), 10**9).tolist() == [0, 1, 2, 3]
    assert filters.top_k_ids(vector(1, 4, 2, 2), 2).tolist() == [1, 2, 3]  # ties with the second


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.49, [1]), (0.51, [1, 2]), (0.79, [1, 2]), (0.81, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_top_p(p: float, kept: list[int]) -> None:
    assert alive(filters.keep_top_p(of(0.1, 0.5, 0.3, 0.1), p)) == kept


def test_top_p_stops_where_it_is_reached_exactly() -> None:
    assert alive(filters.keep_top_p(vector(0, 0, 0, 0), 0.5)) == [0, 1]
    assert alive(filters.keep_typical(vector(0, 0, 0, 0), 0.5)) == [0, 1]


@pytest.mark.parametrize(
    ("p", "kept"), [(0, [0, 1, 2]), (0.19, [0, 1, 2]), (0.21, [1, 2]), (1, [1])]
)
def test_min_p_is_a_share_of_the_likeliest(p: float, kept: list[int]) -> None:
    assert alive(filters.keep_min_p(of(0.1, 0.5, 0.4), p)) == kept


def test_typical_prefers_the_mean_surprise_to_the_likeliest() -> None:
    # The surprises are 0.69, 1.20, 1.61 and the entropy is 1.03: the middle one is closest to it.
    logits = of(0.5, 0.3, 0.2)
    assert alive(filters.keep_typical(logits, 0.2)) == [1]
    assert alive(filters.keep_typical(logits, 0.31)) == [0, 1]
    assert alive(filters.keep_typical(logits, 0.81)) == [0, 1, 2]
    assert alive(filters.keep_typical(logits, 1.0)) == [0, 1, 2]


def test_softmax() -> None:
    assert filters.softmax(vector(0, MASKED, 0)).tolist() == [0.5, 0, 0.5]
    assert filters.softmax(vector(1e30, 1e30)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("uniform", "token"),
    [
        (0.0, 1),
        (math.nextafter(0.25, 0), 1),
        (0.25, 2),
        (0.5, 4),
        (math.nextafter(0.75, 0), 4),
        (0.75, 5),
        (math.nextafter(1, 0), 5),
    ],
)
def test_draw_returns_the_id_at_the_random_number(uniform: float, token: int) -> None:
    assert filters.draw(vector(MASKED, 0, 0, MASKED, 0, 0, MASKED), uniform) == token


def test_draw_never_returns_an_id_with_zero_probability() -> None:
    # The last id is not masked, but its probability is 0 in float64, like the first one's.
    logits = vector(-1e4, 0, -1e4)
    assert filters.draw(logits, 0.0) == 1
    assert filters.draw(logits, math.nextafter(1, 0)) == 1


def test_top_logprobs_are_of_the_raw_distribution() -> None:
    drawn, top = sampling.top_logprobs(of(0.1, 0.6, 0.3), 0, 2)
    assert drawn == pytest.approx(math.log(0.1), abs=1e-6)
    assert list(top) == [1, 2]
    assert list(top.values()) == pytest.approx([math.log(0.6), math.log(0.3)], abs=1e-6)
    assert list(sampling.top_logprobs(of(0.1, 0.6, 0.3), 0, 99)[1]) == [1, 2, 0]


# --- the sampler: order, bans, seeds, errors ---


def test_greedy_takes_the_likeliest_without_a_random_number() -> None:
    one = sampler(temperature=0, top_k=2, top_p=0.1)
    assert one.sample(vector(0, 1, 5, 2, 3), [], []) == 2


def test_greedy_takes_the_first_of_equal_logits() -> None:
    assert sampler(temperature=0).sample(vector(0, 1, 7, 2, 7), [], []) == 2


def test_unk_is_banned_by_default_and_free_when_nothing_is_banned() -> None:
    logits = vector(9, 1, 2, 3, 4)
    assert sampler(temperature=0).sample(logits, [], []) == 4
    assert sampler(temperature=0, banned_ids=()).sample(logits, [], []) == UNK
    assert sampler(temperature=0, banned_ids=(0, 4)).sample(logits, [], []) == 3


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 100))
def test_rows_beyond_the_pieces_are_never_sampled(uniform: float, temperature: float) -> None:
    one = sampler(uniform, rows=6, pieces=4, temperature=temperature, logit_bias={5: 100})
    assert one.sample(vector(1, 1, 1, 1, 50, 50), [], []) in (1, 2, 3)


def test_end_token_is_banned_before_min_new_tokens() -> None:
    one = sampler(temperature=0, min_new_tokens=2)
    logits = vector(0, 9, 1, 2, 3)
    assert one.sample(logits, [7], []) == 4
    assert one.sample(logits, [7], [4]) == 4
    assert one.sample(logits, [7], [4, 4]) == EOS


def test_all_end_tokens_are_banned_before_min_length_of_prompt_and_answer() -> None:
    vocabulary = Vocabulary(rows=5, pieces=5, ends=(1, 3), unk=0)
    params = SamplingParams(temperature=0, min_length=4)
    one = Sampler(params, vocabulary, np.random.default_rng(0))
    logits = vector(0, 9, 1, 8, 2)
    assert one.sample(logits, [7, 7], []) == 4
    assert one.sample(logits, [7, 7], [4]) == 4
    assert one.sample(logits, [7, 7], [4, 4]) == 1
    assert one.sample(logits, [7, 7, 7, 7], []) == 1


@pytest.mark.parametrize("temperature", [0, 1])
def test_rows_beyond_the_pieces_are_sampled_if_they_are_tokens(temperature: float) -> None:
    logits = np.float32([0, 0, 0, 90, 80, 70, 60])
    for tokens, expected in (({}, 2), ({"added": (5,)}, 5), ({"ends": (4,), "added": (6,)}, 4)):
        vocabulary = Vocabulary(**{"rows": 7, "pieces": 3, "unk": 0, "ends": (), **tokens})
        params = SamplingParams(temperature=temperature, banned_ids=(0, 1), seed=1)
        assert Sampler(params, vocabulary, np.random.default_rng(1)).sample(logits, [], []) == (
            expected
        )


def test_banned_first_ids_are_banned_once() -> None:
    one = sampler(temperature=0, banned_first_ids=(4, 3))
    logits = vector(0, 1, 2, 3, 4)
    assert one.sample(logits, [4], []) == 2
    assert one.sample(logits, [4], [2]) == 4


def test_the_last_id_of_a_banned_sequence_is_banned_after_the_others() -> None:
    one = sampler(temperature=0, banned_sequences=((2, 3, 4), (1, 3), (2, 4)))
    logits = vector(0, 1, 2, 3, 4)
    assert one.sample(logits, [2], [3]) == 4  # one longer than the text
    assert one.sample(logits, [2, 2], [3]) == 3
    assert one.sample(logits, [1, 2], []) == 3
    assert one.sample(logits, [3, 1], []) == 4
    assert one.sample(logits, [3, 2], [3]) == 3


def test_model_without_an_end_token() -> None:
    assert (
        sampler(temperature=0, min_new_tokens=2, eos=None).sample(vector(0, 9, 1, 2, 3), [], [])
        == 1
    )


def test_repetition_and_ngrams_see_the_prompt_and_penalties_only_the_answer() -> None:
    logits = vector(0, 1, 2, 3, 4)
    assert sampler(temperature=0, repetition_penalty=4).sample(logits, [4], []) == 3
    assert sampler(temperature=0, no_repeat_ngram_size=1).sample(logits, [4], [3]) == 2
    assert sampler(temperature=0, presence_penalty=2).sample(logits, [4], []) == 4
    assert sampler(temperature=0, presence_penalty=2).sample(logits, [], [4]) == 3
    assert sampler(temperature=0, frequency_penalty=0.9).sample(logits, [], [4]) == 4
    assert sampler(temperature=0, frequency_penalty=0.9).sample(logits, [], [4, 4]) == 3


def test_bias_comes_before_the_repetition_penalty() -> None:
    # (2 + 4) / 2 = 3 is below 4; were the bias last, 2 / 2 + 4 = 5 would win.
    one = sampler(temperature=0, logit_bias={2: 4}, repetition_penalty=2)
    assert one.sample(vector(0, 0, 2, 4, 0), [2], []) == 3


def test_repetition_comes_before_presence() -> None:
    # 6 / 2 - 1 = 2 is below 2.2; were presence first, (6 - 1) / 2 = 2.5 would win.
    one = sampler(temperature=0, repetition_penalty=2, presence_penalty=1)
    assert one.sample(vector(0, 0, 6, 2.2, 0), [], [2]) == 3


def test_processors_see_all_ids_and_the_penalised_logits_and_come_last() -> None:
    seen: list[tuple[list[int], list[float]]] = []

    def double(ids: Sequence[int], logits: Vector) -> Vector:
        seen.append((list(ids), logits.tolist()))
        return logits * 2

    def spare(ids: Sequence[int], logits: Vector) -> Vector:
        seen.append((list(ids), logits.tolist()))
        filters.ban(logits, [4])
        return logits

    one = sampler(temperature=0, repetition_penalty=2, processors=(double, spare))
    assert one.sample(vector(0, 1, 2, 3, 4), [4], [3]) == 2
    assert seen == [([4, 3], [MASKED, 1, 2, 1.5, 2]), ([4, 3], [MASKED, 2, 4, 3, 4])]


def test_the_model_s_logits_stay_as_they_are() -> None:
    logits = vector(0, 1, 2, 3, 4)
    one = sampler(
        *[0.5] * 2,
        logit_bias={2: 4},
        repetition_penalty=2,
        presence_penalty=1,
        frequency_penalty=1,
        no_repeat_ngram_size=1,
        min_new_tokens=5,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.9,
    )
    for _ in range(2):
        one.sample(logits, [3], [4])
        assert logits.tolist() == [0, 1, 2, 3, 4]


def test_temperature_comes_before_top_p() -> None:
    # At temperature 0.5 the shares 0.5, 0.25, 0.125, 0.125 become 8/11, 2/11, .5/11, .5/11.
    logits = np.concatenate([vector(MASKED), of(0.5, 0.25, 0.125, 0.125)])
    assert probabilities_of(sampler(temperature=0.5, top_p=0.6), logits) == [0, 1, 0, 0, 0]
    assert probabilities_of(sampler(temperature=1, top_p=0.6), logits) == [0, 0.6667, 0.3333, 0, 0]


def test_top_k_comes_before_top_p_and_the_rest_is_normalised() -> None:
    # The best two have 4/7 and 3/7 of what top-k leaves, so top-p 0.55 needs only the first;
    # of all of it that has 0.4 and two would be needed.
    logits = np.concatenate([vector(MASKED), of(0.4, 0.3, 0.2, 0.1)])
    assert probabilities_of(sampler(temperature=1, top_k=2, top_p=0.55), logits) == [0, 1, 0, 0, 0]
    assert probabilities_of(sampler(temperature=1, top_p=0.55), logits) == [0, 0.5714, 0.4286, 0, 0]


def test_top_p_comes_before_typical() -> None:
    # Among all, 0.2 is the most typical (entropy 1.28); top-p 0.8 leaves 0.5 and 0.3, whose
    # entropy of 0.66 makes the first the most typical.
    logits = np.concatenate([vector(MASKED), of(0.4, 0.3, 0.2, 0.1)])
    alone = sampler(temperature=1, typical_p=0.01)
    assert probabilities_of(alone, logits) == [0, 0, 1, 0, 0]
    behind = sampler(temperature=1, top_p=0.69, typical_p=0.01)
    assert probabilities_of(behind, logits) == [0, 1, 0, 0, 0]


def test_min_p_comes_before_typical() -> None:
    # min-p leaves 0.5 and 0.3 (entropy 0.66): the likeliest is typical, not the middle one.
    logits = np.concatenate([vector(MASKED, MASKED), of(0.5, 0.3, 0.2)])
    assert probabilities_of(sampler(temperature=1, typical_p=0.1), logits) == [0, 0, 0, 1, 0]
    both = sampler(temperature=1, min_p=0.5, typical_p=0.1)
    assert probabilities_of(both, logits) == [0, 0, 1, 0, 0]


def test_one_random_number_a_token() -> None:
    one = sampler(0.0, 0.99, temperature=1)
    logits = vector(0, 1, 1, 1, 1)
    assert [one.sample(logits, [], []), one.sample(logits, [], [])] == [1, 4]


def test_seeds_repeat() -> None:
    def run(seed: int) -> list[int]:
        vocabulary = Vocabulary(rows=50, pieces=50, ends=(1,), unk=0)
        one = Sampler(SamplingParams(), vocabulary, np.random.default_rng(seed))
        return [one.sample(np.zeros(50, np.float32), [], []) for _ in range(20)]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_nan_is_an_error(temperature: float) -> None:
    with pytest.raises(SamplingError, match="NaN"):
        sampler(0.5, temperature=temperature).sample(vector(1, math.nan, 2, 3, 4), [], [])


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_masking_every_token_is_an_error(temperature: float) -> None:
    one = sampler(0.5, temperature=temperature, banned_ids=(0, 1, 2, 3, 4))
    with pytest.raises(SamplingError, match="all are banned"):
        one.sample(vector(1, 2, 3, 4, 5), [], [])
    with pytest.raises(SamplingError, match="all are banned"):
        sampler(0.5, temperature=temperature).sample(np.full(5, MASKED, np.float32), [], [])


@pytest.mark.parametrize("token", [5, 10**20])
def test_ids_out_of_range_are_named(token: int) -> None:
    for params in ({"banned_ids": (2, token)}, {"logit_bias": {2: 1.0, token: 1.0}}):
        with pytest.raises(ParameterError, match=rf"{next(iter(params))}.* {token}, .*0 to 4"):
            sampler(**params)


def test_processors_cannot_bring_banned_ids_back() -> None:
    params = SamplingParams(temperature=0, processors=(lambda ids, logits: -logits,))
    vocabulary = Vocabulary(rows=5, pieces=4, ends=(), unk=1)
    drawn = Sampler(params, vocabulary, np.random.default_rng(0)).sample(
        np.float32([3, -9, 2, 4, -9]), [0], []
    )
    assert drawn == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_invalid_logits_of_a_processor_are_an_error(value: float) -> None:
    params = SamplingParams(processors=(lambda ids, logits: np.full_like(logits, value),))
    one = Sampler(params, Vocabulary(rows=5, pieces=5, ends=(), unk=1), np.random.default_rng(0))
    with pytest.raises(SamplingError, match="not numbers"):
        one.sample(np.float32([1, 2, 3, 4, 5]), [0], [])
