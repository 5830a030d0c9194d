"""`issun generate` with beams, and with the best of several samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from issun.cli.n_best import NBest
from issun.runtime import BeamParams, Model, ParameterError
from tests.cli.conftest import issun


@pytest.fixture(scope="module")
def demonstration() -> Model:
    return Model.load(threads=1)


@pytest.mark.slow
def test_beams(demonstration: Model) -> None:
    question = "日本で一番高い山は?"
    result = issun("generate", question, "--beams", "3", "--n", "2", "--length-penalty", "0")
    params = BeamParams(num_beams=3, num_return_sequences=2, length_penalty=0)
    found = demonstration.beam_search(demonstration.prompt(question), params)
    assert (result.code, result.out) == (0, "\n\n".join(c.text for c in found) + "\n")
    assert found[0].text == "日本で一番高い山は富士山です。"


def test_one_answer_as_json(fuji: Path) -> None:
    result = issun("generate", fuji, "山は?", "--beams", "2", "--max-new-tokens", "3", "--json")
    answer = json.loads(result.out)
    assert (answer["text"], answer["finish_reason"]) == ("富士", "length")
    assert answer["score"] < 0


@pytest.mark.slow
def test_the_best_of_several_samples_as_a_list(fuji: Path) -> None:
    arguments = ("generate", fuji, "山は?", "--n", "2", "--best-of", "4", "--seed", "1", "--json")
    result = issun(*arguments, "--temperature", "2", "--stats")
    assert result.code == 0
    first, second = json.loads(result.out)
    assert first["score"] >= second["score"]
    assert result.err.count("tokens/s") == 2
    assert issun(*arguments, "--temperature", "2").out.count('"score"') == 2


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--beams", "2", "--temperature", "1"], "Beam search does not support temperature"),
        (["--n", "2", "--regex", "山"], "--n cannot be combined with --regex."),
        (["--n", "2", "--temperature", "0"], "temperature is 0, so all 2 answers would be equal"),
    ],
)
def test_mistakes_are_one_line(options: list[str], reason: str) -> None:
    result = issun("generate", "山は?", *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {reason}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sampling", "constraint", "reason"),
    [
        ({"beams": 0}, {}, None, "num_beams is 0, it must be a whole number from 1 to 1000."),
        ({"beams": 2, "n": 3}, {}, None, "--n is 3, it must be at most --beams, which is 2."),
        ({"beams": 2, "n": 0}, {}, None, "num_return_sequences is 0, it must be"),
        ({"beams": 2}, {"seed": 1}, None, "Beam search does not support seed"),
        ({"beams": 2, "best_of": 2}, {}, None, "--beams cannot be combined with --best-of."),
        ({"beams": 2}, {}, "choices", "--beams cannot be combined with --choices."),
        ({"best_of": 2}, {}, "json_schema", "--best-of cannot be combined with --json-schema."),
        ({"n": 3, "best_of": 2}, {}, None, "best_of is 2, it must be a whole number of at least"),
        ({"n": 0}, {}, None, "n is 0, it must be a whole number of at least 1."),
        ({"length_penalty": 1.0}, {}, None, "Only --beams uses --length-penalty."),
        ({"beams": 2, "length_penalty": 99.0}, {}, None, "length_penalty is 99.0, it must be"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(
    options: dict[str, Any], sampling: dict[str, Any], constraint: str | None, reason: str
) -> None:
    none = dict.fromkeys(("beams", "length_penalty", "n", "best_of"))
    with pytest.raises(ParameterError) as caught:
        NBest(**none | options).check(sampling, constraint)
    assert str(caught.value).startswith(reason)


def test_a_minimum_above_the_default_maximum_is_no_mistake() -> None:
    NBest(beams=2, length_penalty=None, n=None, best_of=None).check({"min_new_tokens": 200}, None)


def test_a_stop_string_ends_the_answer(fuji: Path) -> None:
    result = issun(
        "generate", fuji, "山は?", "--beams", "2", "--max-new-tokens", "2", "--stop", "士"
    )
    assert (result.code, result.out) == (0, "富\n")
