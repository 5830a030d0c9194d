"""The template's spelling of a newline counts as one newline in constraints and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from issun.runtime import Model, ParameterError, SamplingParams
from issun.runtime.constraint.constraints import Constraints
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from tests.runtime.wandering import wander
from tests.special_ids import assign_special_ids

pytest.importorskip("llguidance")
SPECIAL = ("[CLS]", "<unk>", "<s>", "</s>", "[PAD]", "[SEP]", "[MASK]")
Made = tuple[SentencePieceTokenizer, Constraints]


def make(file: Path, newline: str) -> Made:
    tokenizer = SentencePieceTokenizer(file, assign_special_ids(file, SPECIAL))
    rows, eos = tokenizer.num_pieces, tokenizer.special["</s>"]
    return tokenizer, Constraints(tokenizer, rows=rows, ends=[eos], newline=newline, max_tokens=100)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.load(threads=1) as found:
        yield found


@pytest.fixture(params=["one piece", "two pieces"])
def made(request: pytest.FixtureRequest, model: Model) -> Made:
    """The embedded model has one piece for the newline; ja-small spells it with two."""
    if request.param == "one piece":
        return model.tokenizer, model.constraints
    folder: Path = request.getfixturevalue("shared") / "checkpoints" / "ja-small"
    if not folder.exists():
        pytest.skip(f"there is no checkpoint at {folder}")
    return make(folder / "spiece.model", r"\n")


@pytest.mark.parametrize(
    "choice", ["富士山\n琵琶湖", "\n", "山\n", "\n\n山\n\n", "①\n②", r"山\n川", "山\\\n川"]
)
def test_a_choice_with_newlines(made: Made, choice: str) -> None:
    tokenizer, constraints = made
    for seed in range(4):
        answer = wander(tokenizer, constraints.choices([choice]), seed)
        assert answer.text == choice
        assert "\n" not in tokenizer.decode(answer.ids), "the model spells it as it has learnt"


@pytest.mark.sampled
@pytest.mark.parametrize(
    "pattern",
    [
        "山\n川",
        r"山\n川",
        r"山\s川",
        "山[\n]川",
        r"[^山]\n[^\n]",
        r"(?s:.){4}",
        r"(.|\n){1,6}",
        r"(山\n){2,5}",
        r"[\\\nn]{3}",
        r"x[^n]{2}y",
        r"(- .{1,4}\n){3}",
        r"\\(n|m)",
    ],
)
def test_a_pattern_with_newlines(made: Made, pattern: str) -> None:
    tokenizer, constraints = made
    constraint = constraints.regex(pattern)
    for seed in range(8):
        answer = wander(tokenizer, constraint, seed)
        assert answer.ended
        assert re.fullmatch(pattern, answer.text), (answer.text, answer.ids)


def test_the_two_characters_in_a_pattern_are_a_newline(made: Made) -> None:
    tokenizer, constraints = made
    for pattern in (r"山\\n川", r"(山|川)\\n川"):
        text = wander(tokenizer, constraints.regex(pattern), 1).text
        assert text[1:] == "\n川"


def test_a_newline_is_one_character(made: Made) -> None:
    """A bound of three allows three newlines, though they are spelled with six characters."""
    tokenizer, constraints = made
    assert wander(tokenizer, constraints.regex(r"\n{3}"), 0).text == "\n\n\n"
    texts = {wander(tokenizer, constraints.regex(r"(?s:.){3}"), seed).text for seed in range(9)}
    assert {len(text) for text in texts} == {3}


def test_in_json_it_stays_the_escape(made: Made, model: Model) -> None:
    if made[0] is not model.tokenizer:
        pytest.skip("this vocabulary has no braces; its strings are tried below")
    schema = {
        "properties": {
            "a": {"const": "山\n川"},
            "b": {"type": "string", "pattern": "^(\n|x)+$", "minLength": 3, "maxLength": 3},
        },
        "required": ["a", "b"],
    }
    constraint = model.constraints.json_schema(schema)
    for seed in range(8):
        text = wander(model.tokenizer, constraint, seed).text
        assert "\n" not in text
        found = json.loads(text)
        assert found["a"] == "山\n川"
        assert re.fullmatch("[\nx]{3}", found["b"])


def test_a_json_string_with_newlines(made: Made) -> None:
    tokenizer, constraints = made
    constraint = constraints.json_schema(
        {"type": "array", "items": {"const": "山\n川"}, "minItems": 2}
    )
    text = wander(tokenizer, constraint, 0).text
    assert set(json.loads(text)) == {"山\n川"}
    assert "\n" not in text


def test_a_generated_answer_and_its_stream(model: Model) -> None:
    constraint = model.constraints.choices(["一行目\n二行目\n"])
    params = SamplingParams(constraint=constraint)
    segments = [s.text for s in model.stream(model.prompt("二行で答えて"), params)]
    assert "".join(segments) == "一行目\n二行目\n"


def test_without_a_spelling_a_newline_becomes_a_space(spiece: Path) -> None:
    tokenizer, constraints = make(spiece, "")
    letter = next(c for c in sorted(constraints.vocabulary.alphabet or ()) if c.isalpha())
    choice = f"{letter}\n{letter}"
    assert wander(tokenizer, constraints.choices([choice]), 0).text == choice
    with pytest.raises(ParameterError, match="regex"):
        constraints.regex(rf"{letter}\n{letter}")
