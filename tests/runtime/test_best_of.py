"""Several samples of one prompt, the likeliest first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from issun.runtime import (
    Completion,
    Conversation,
    Model,
    ParameterError,
    SamplingParams,
    Timings,
)
from issun.runtime.decoding.best_of import best_samples, sample_params
from issun.runtime.decoding.generate import Logprob
from issun.runtime.decoding.sampling import seeded

PROMPT = [2, 17, 93, 120, 41, 8, 77]
PARAMS = SamplingParams(temperature=1.0, max_new_tokens=8, seed=5, lookup=False)


def sample(text: str, *drawn: float) -> Completion:
    logprobs = tuple(Logprob(value, {}) for value in drawn)
    return Completion(text, [5] * len(drawn), "stop", Timings(), logprobs=logprobs)


def test_the_best_have_the_highest_mean_per_token() -> None:
    samples = [sample("a", -1, -2), sample("b", -1, -1, -1, -1.5), sample("c", -3)]
    found = best_samples(samples, 2, logprobs=True)
    assert [(c.text, c.score) for c in found] == [("b", -1.125), ("a", -1.5)]
    assert found[1].logprobs == samples[0].logprobs
    assert [c.logprobs for c in best_samples(samples, 3, logprobs=False)] == [()] * 3


def test_answer_i_has_seed_plus_i() -> None:
    assert [p.seed for p in sample_params(PARAMS, 1, 3)] == [5, 6, 7]
    assert seeded(replace(PARAMS, seed=2**64 - 1), 2).seed == 1
    assert [p.seed for p in sample_params(replace(PARAMS, seed=None), 2, None)] == [None, None]


def test_samples_are_what_generate_gives_with_their_seeds(model: Model) -> None:
    found = model.sample_n(PROMPT, PARAMS, n=6)
    alone = [model.generate(PROMPT, replace(PARAMS, seed=5 + i, logprobs=1)) for i in range(6)]
    assert len({c.text for c in alone}) > 3
    expected = best_samples(alone, 6, logprobs=False)
    assert [(c.text, c.ids) for c in found] == [(c.text, c.ids) for c in expected]
    assert [c.score for c in found] == pytest.approx([c.score for c in expected], abs=1e-4)
    assert all(c.logprobs == () for c in found)
    assert [c.ids for c in model.sample_n(PROMPT, PARAMS, n=2, best_of=6)] == [
        c.ids for c in expected[:2]
    ]


def test_the_prompt_is_computed_once(model: Model) -> None:
    """Except for the last two tokens of each, which are computed together."""
    found = model.sample_n([5, *range(20, 49)], PARAMS, n=4)
    assert sorted(c.timings.reused_tokens for c in found) == [0, 28, 28, 28]


def test_without_a_seed_samples_differ(model: Model) -> None:
    found = model.sample_n(PROMPT, replace(PARAMS, seed=None, temperature=2.0), n=4)
    assert len({tuple(c.ids) for c in found}) > 1


def test_log_probabilities_are_kept_if_requested(model: Model) -> None:
    (found,) = model.sample_n(PROMPT, replace(PARAMS, logprobs=2))
    assert [len(entry.top) for entry in found.logprobs] == [2] * found.timings.new_tokens


def test_a_text_and_the_bundles_defaults(model: Model) -> None:
    assert len(model.sample_n("日本", n=2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0, it must be a whole number of at least 1."),
        ({"n": 3, "best_of": 2}, "best_of is 2, it must be a whole number of at least 3."),
        ({"n": 1.5}, "n is 1.5, it must be a whole number"),
        (
            {"n": 2, "params": SamplingParams(temperature=0)},
            "temperature is 0, so all 2 answers would be equal",
        ),
        ({"params": SamplingParams(banned_ids=(999,))}, "banned_ids contains the id 999"),
    ],
)
def test_what_is_refused(model: Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        model.sample_n(PROMPT, **options)
    assert str(caught.value).startswith(message)
    model.check_free()


def test_one_greedy_answer(model: Model) -> None:
    (found,) = model.sample_n(PROMPT, SamplingParams(temperature=0, max_new_tokens=5))
    assert found.score is not None
    assert Conversation(model).reply("山は?", SamplingParams(max_new_tokens=2)).score is None
