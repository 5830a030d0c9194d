"""Which beams are continued and which answers win, by hand on small tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.runtime import BeamParams, ParameterError
from issun.runtime.decoding.beams import HONOURED, BeamSearch
from tests.runtime.samplers import vector

A, B, END = 0, 1, 2
Table = Mapping[tuple[int, ...], tuple[float, ...]]

# The probabilities of A, B and END after each answer.
TABLE: Table = {
    (): (0.5, 0.4, 0.1),
    (A,): (0.3, 0.3, 0.4),
    (B,): (0.05, 0.05, 0.9),
    (A, A): (0, 0, 1),
    (A, B): (0, 0, 1),
}


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) if p else -math.inf for p in probabilities]


def search(table: Table, limit: int = 10, **fields: Any) -> BeamSearch:
    found = BeamSearch(BeamParams(**fields), limit=limit, ends={END})
    while True:
        found.advance([vector(*logs(*table[beam.ids])) for beam in found.running])
        if found.done:
            return found


def answers(found: BeamSearch) -> list[tuple[tuple[int, ...], float]]:
    return [(beam.ids, round(beam.score, 4)) for beam in found.finished]


def test_the_likelier_answer_is_found_that_greedy_decoding_misses() -> None:
    found = search(TABLE, num_beams=2, length_penalty=0)
    # 0.4 x 0.9 = 0.36 against 0.5 x 0.4 = 0.2; the end at once, 0.1, was third of two.
    assert answers(found) == [((B, END), round(math.log(0.36), 4)), ((A, END), -1.6094)]
    assert [beam.finish_reason for beam in found.finished] == ["stop", "stop"]
    assert answers(search(TABLE, num_beams=1))[0][0] == (A, END)


@pytest.mark.parametrize(
    ("penalty", "best", "second"),
    [(0, -1.0217, -1.6094), (1, -0.5108, -0.8047), (2, -0.2554, -0.4024), (-1, -2.0433, -3.2189)],
)
def test_a_score_is_divided_by_the_power_of_its_length(
    penalty: float, best: float, second: float
) -> None:
    found = search(TABLE, num_beams=2, length_penalty=penalty)
    assert [score for _, score in answers(found)] == [best, second]


def test_an_end_counts_only_among_the_best_candidates() -> None:
    table = dict.fromkeys(itertools.product((A, B), repeat=2), (0.0, 0.0, 1.0))
    found = search(TABLE | table, num_beams=3, length_penalty=0, early_stopping="never")
    assert ((END,), -2.3026) not in answers(found)  # 0.1, pushed out by 0.36, 0.2 and 0.15
    found = search(TABLE | table, num_beams=3, length_penalty=0, early_stopping=True)
    assert answers(found) == [((B, END), -1.0217), ((A, END), -1.6094), ((END,), -2.3026)]


def test_never_compares_with_the_greatest_length() -> None:
    """0.5 x 0.3 after three tokens has the score log(0.15) / 9, better than log(0.36) / 4."""
    fields = {"num_beams": 2, "length_penalty": 2, "num_return_sequences": 2}
    assert answers(search(TABLE, limit=3, early_stopping=False, **fields))[0][0] == (B, END)
    assert answers(search(TABLE, limit=3, early_stopping="never", **fields)) == [
        ((A, A, END), -0.2108),
        ((A, B, END), -0.2108),
    ]


def test_early_stopping_takes_the_first_answers() -> None:
    table: Table = {
        (): (0.55, 0, 0.45),
        (A,): (0.5, 0.1, 0.4),
        (A, A): (0.1, 0, 0.9),
        (A, B): (0, 1, 0),
        (A, A, A): (0, 0, 1),
        (A, B, B): (0, 0, 1),
    }
    fields = {"num_beams": 2, "length_penalty": 0}
    first = search(table, early_stopping=True, **fields)
    assert answers(first) == [((END,), round(math.log(0.45), 4)), ((A, END), -1.5141)]
    later = search(table, early_stopping=False, **fields)  # 0.55 x 0.5 is above 0.22
    assert answers(later) == [((END,), -0.7985), ((A, A, END), round(math.log(0.2475), 4))]


def test_answers_end_at_the_limit() -> None:
    found = search(TABLE, limit=1, num_beams=2, length_penalty=1)
    assert answers(found) == [((A,), -0.6931), ((B,), -0.9163)]
    assert [beam.finish_reason for beam in found.finished] == ["length", "length"]
    assert found.running == []


def test_several_end_tokens_leave_enough_candidates_to_continue() -> None:
    found = BeamSearch(BeamParams(num_beams=2), limit=9, ends={2, 3})
    found.advance([vector(*logs(0.04, 0.06, 0.5, 0.4))])
    assert [beam.ids for beam in found.finished] == [(2,), (3,)]
    assert [beam.ids for beam in found.running] == [(1,), (0,)]


def test_a_stop_string_ends_an_answer() -> None:
    found = BeamSearch(
        BeamParams(num_beams=2), limit=9, ends={END}, stopped=lambda ids: ids[-1] == B
    )
    found.advance([vector(*logs(0.5, 0.4, 0.1))])
    assert [(beam.ids, beam.finish_reason) for beam in found.finished] == [((B,), "stop")]
    assert [beam.ids for beam in found.running] == [(A,)]


def test_masked_tokens_are_no_candidates() -> None:
    found = BeamSearch(BeamParams(num_beams=3), limit=9, ends={END})
    found.advance([vector(*logs(0, 1, 0))])
    assert [beam.ids for beam in found.running] == [(B,)]
    found.advance([vector(*logs(0, 0, 0))])
    assert (found.running, found.finished, found.done) == ([], [], True)


@given(seed=st.integers(0, 2**32 - 1), penalty=st.sampled_from([0, 1, 2, -1]))
def test_with_a_beam_for_every_answer_the_best_one_is_found(seed: int, penalty: float) -> None:
    rng, limit = np.random.default_rng(seed), 4
    prefixes = [
        ids for n in range(limit) for ids in itertools.product((A, B), repeat=n)
    ]  # all that go on
    table: Table = {ids: tuple(rng.dirichlet([1, 1, 1])) for ids in prefixes}
    found = search(table, limit=limit, num_beams=40, length_penalty=penalty, early_stopping="never")
    scores = {}
    for ids in prefixes:
        for token in (A, B, END) if len(ids) == limit - 1 else (END,):
            answer = (*ids, token)
            total = sum(math.log(table[answer[:n]][answer[n]]) for n in range(len(answer)))
            scores[answer] = total / len(answer) ** penalty
    best = max(scores, key=scores.__getitem__)
    assert found.finished[0].score == pytest.approx(scores[best], abs=1e-4)
    assert {beam.ids for beam in found.finished} == set(scores)


# --- parameters ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0, it must be a whole number from 1 to 1000."),
        ({"num_beams": 1001}, "num_beams is 1001, it must be a whole number from 1 to 1000."),
        ({"num_beams": 2.0}, "num_beams is 2.0, it must be a whole number"),
        ({"length_penalty": 11}, "length_penalty is 11, it must be a number from -10 to 10."),
        ({"length_penalty": math.nan}, "length_penalty is nan, it must be"),
        ({"early_stopping": "always"}, "early_stopping is 'always', it must be True, False or"),
        ({"early_stopping": 1}, "early_stopping is 1, it must be True, False or"),
        ({"num_return_sequences": 5}, "num_return_sequences is 5, it must be a whole number from"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, it must be a whole number of at least 1."),
        ({"temperature": 0.7}, "Beam search does not support temperature: leave it out"),
        ({"top_k": 5}, "Beam search does not support top_k"),
        ({"seed": 1}, "Beam search does not support seed"),
        ({"logprobs": 1}, "Beam search does not support logprobs"),
        ({"constraint": object()}, "Beam search does not support constraint"),
    ],
)
def test_what_is_out_of_range_or_not_supported_is_named(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        BeamParams(**fields)
    assert str(caught.value).startswith(message)


def test_what_beam_search_honours_is_accepted() -> None:
    values = {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "no_repeat_ngram_size": 2,
        "logit_bias": {5: 1.0},
        "banned_ids": (5,),
        "banned_first_ids": (5,),
        "banned_sequences": ((5, 6),),
        "processors": (lambda ids, logits: logits,),
        "min_length": 1,
        "min_new_tokens": 1,
        "max_new_tokens": 2,
        "stop": ("の",),
        "lookup": False,
    }
    assert set(values) == set(HONOURED)
    assert BeamParams(**values).stop == ("の",)
