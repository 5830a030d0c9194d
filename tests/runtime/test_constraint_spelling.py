"""What a vocabulary cannot spell is detected when the constraint is made, or normalized."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import Model, ParameterError, SamplingParams
from issun.runtime.constraint.constraints import Constraints
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from tests.runtime.wandering import wander
from tests.special_ids import assign_special_ids

pytest.importorskip("llguidance")
SPECIAL = ("[CLS]", "<unk>", "<s>", "</s>", "[PAD]", "[SEP]", "[MASK]")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.load(threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def braceless(shared: Path) -> tuple[SentencePieceTokenizer, Constraints]:
    """The tokenizer of a model without the pieces { and }, and its constraints."""
    file = shared / "checkpoints" / "ja-small" / "spiece.model"
    if not file.exists():
        pytest.skip(f"there is no tokenizer at {file}")
    tokenizer = SentencePieceTokenizer(file, assign_special_ids(file, SPECIAL))
    rows, eos = tokenizer.num_pieces, tokenizer.special["</s>"]
    return tokenizer, Constraints(tokenizer, rows=rows, ends=[eos], newline="\\n", max_tokens=100)


@pytest.mark.parametrize(
    "value",
    [
        r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])",
        r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z",
        r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}",
    ],
)
def test_a_pattern_after_any_characters_can_be_finished(
    braceless: tuple[SentencePieceTokenizer, Constraints], value: str
) -> None:
    tokenizer, constraints = braceless
    constraint = constraints.regex(rf"([^は、:=。\n]*[は:=]、?)?({value})。?", max_tokens=48)
    answers = [wander(tokenizer, constraint, seed) for seed in range(4)]
    assert all(re.search(value, answer.text) and answer.ended for answer in answers)


@pytest.mark.parametrize("pattern", ["[^@]+@x", "[あ-ん]+？", r"[a-z0-9]+(\.[a-z]+)?@[a-z]{2,6}"])
def test_a_pattern_that_needs_a_missing_character_is_refused_soon(
    braceless: tuple[SentencePieceTokenizer, Constraints], pattern: str
) -> None:
    with pytest.raises(ParameterError, match=r"^regex: the model's vocabulary cannot spell what "):
        braceless[1].regex(pattern)


@pytest.mark.parametrize(
    "choices",
    [
        ["㈱山田", "その他"],
        ["はい！", "いいえ？"],
        ["ｶﾞｷﾞｸﾞ", "①番", "Ａｂ"],
        ["㌔", "東　京", "東\t京"],
        [" 東京 ", "富士山"],
        ["\u200b富士\u200b山", "か\u3099"],
    ],
)
def test_choices_are_restored_to_their_original_spelling(model: Model, choices: list[str]) -> None:
    for choice in choices:
        assert wander(model.tokenizer, model.constraints.choices([choice]), 0).text == choice
    constraint = model.constraints.choices(choices)
    answers = [wander(model.tokenizer, constraint, seed) for seed in range(12)]
    assert {a.text for a in answers} <= set(choices)
    assert all(a.ended for a in answers)


def test_a_generated_choice_is_restored_whole_and_streamed(model: Model) -> None:
    params = SamplingParams(constraint=model.constraints.choices(["はい！", "いいえ？"]))
    stream = model.stream(model.prompt("3は偶数ですか?"), params)
    segments = [segment.text for segment in stream]
    assert "".join(segments) == stream.finish().text
    assert stream.finish().text in ("はい！", "いいえ？")


def test_an_exact_spelling_takes_precedence(model: Model) -> None:
    for choices in (["！", "!"], ["!", "！"]):
        assert wander(model.tokenizer, model.constraints.choices(choices), 0).text == "!"


@pytest.mark.parametrize(
    ("choices", "place", "character"),
    [
        (["😀", "その他"], 0, "😀"),
        (["その他", "カフェ・é"], 1, "é"),
        (["a", "b", "한국"], 2, "한"),
        (["\u200b"], 0, "\u200b"),
    ],
)
def test_a_choice_that_cannot_be_spelled_is_named(
    model: Model, choices: list[str], place: int, character: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        model.constraints.choices(choices)
    assert str(caught.value) == (
        f"choices[{place}]: the model's vocabulary cannot spell {choices[place]!r}: "
        f"it has no {character!r}."
    )


@pytest.mark.parametrize(
    ("pattern", "only"),
    [
        ("a㈱|b", "b"),
        ("(㈱|株)山", "株山"),
        ("[㈱い]{2}", "いい"),
        ("x(😀|y)z", "xyz"),
        (r"x(\x{1F600}|y)", "xy"),
        (r"株[\p{Emoji_Presentation}山]", "株山"),
        ("株([㈰-㈿]|山)", "株山"),
    ],
)
def test_a_pattern_leaves_out_what_cannot_be_spelled(model: Model, pattern: str, only: str) -> None:
    text = model.constraints.regex(pattern)
    in_json = model.constraints.json_schema({"type": "string", "pattern": f"^({pattern})$"})
    for seed in range(6):
        assert wander(model.tokenizer, text, seed).text == only
        assert json.loads(wander(model.tokenizer, in_json, seed).text) == only


@pytest.mark.parametrize(
    ("pattern", "character"), [("a㈱", "㈱"), ("😀+", "😀"), ("(é|è)x", "é"), ("[㈰-㈿]", "㈰")]
)
def test_a_pattern_of_which_nothing_can_be_spelled_is_refused(
    model: Model, pattern: str, character: str
) -> None:
    reason = f"cannot spell what {pattern!r} matches: it has no {character!r}."
    with pytest.raises(ParameterError) as caught:
        model.constraints.regex(pattern)
    assert str(caught.value) == f"regex: the model's vocabulary {reason}"
    schema = {"type": "object", "properties": {"名": {"type": "string", "pattern": pattern}}}
    with pytest.raises(ParameterError) as caught:
        model.constraints.json_schema(schema)
    assert str(caught.value) == f"#/properties/名/pattern: the model's vocabulary {reason}"


@pytest.mark.parametrize(
    ("schema", "answers"),
    [
        ({"enum": ["㈱山田", "はい！", "赤"]}, ["㈱山田", "はい！", "赤"]),
        ({"const": {"①": ["②", {"Ａ": "ｱ"}]}}, [{"①": ["②", {"Ａ": "ｱ"}]}]),
        (
            {
                "properties": {"㈱": {"const": "㌔"}, "名": {"const": "a\tb"}},
                "required": ["㈱", "名"],
            },
            [{"㈱": "㌔", "名": "a\tb"}],
        ),
        (
            {
                "type": "array",
                "prefixItems": [{"const": "①"}, {"const": "1"}],
                "items": False,
                "minItems": 2,
            },
            [["①", "1"]],
        ),
        (
            {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 3}], "$defs": {"a": {"const": "！"}}},
            ["！", 3],
        ),
        (
            {
                "oneOf": [
                    {
                        "properties": {"k": {"const": "①"}, "v": {"const": "⑤"}},
                        "required": ["k", "v"],
                    },
                    {"properties": {"k": {"const": "②"}}, "required": ["k"]},
                ]
            },
            [{"k": "①", "v": "⑤"}, {"k": "②"}],
        ),
    ],
)
def test_literals_of_a_schema_are_restored_to_their_original_spelling(
    model: Model, schema: dict[str, Any], answers: list[Any]
) -> None:
    constraint = model.constraints.json_schema(schema)
    found = [json.loads(wander(model.tokenizer, constraint, 2 * n).text) for n in range(20)]
    assert all(answer in answers for answer in found)
    assert all(answer in found for answer in answers)


def test_text_that_is_not_a_literal_is_unchanged(model: Model) -> None:
    """Free text that looks like a literal's spelling is at another place."""
    schema = {
        "properties": {"a": {"const": "①"}, "b": {"type": "string", "pattern": '^1"\\\\1$'}},
        "required": ["a", "b"],
    }
    text = wander(model.tokenizer, model.constraints.json_schema(schema), 0).text
    assert json.loads(text) == {"a": "①", "b": '1"\\1'}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"名": {"enum": ["a", "b", "😀"]}}}, "#/properties/名/enum/2: "),
        ({"properties": {"é/~": {}}}, "#/properties/é~1~0: "),
        ({"items": {"const": {"a": ["é"]}}}, "#/items/const/a/0: "),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": "é"}}}, "#/$defs/x/const: "),
    ],
)
def test_a_literal_that_cannot_be_spelled_is_named_with_its_path(
    model: Model, schema: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        model.constraints.json_schema(schema)
    assert str(caught.value).startswith(f"{message}the model's vocabulary cannot spell ")
    assert "{" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "object"}, "#"),
        ({"type": "array", "items": {"type": "object"}, "minItems": 1}, "#/items"),
        ({"anyOf": [{"type": "object", "properties": {"a": {}}}]}, "#/anyOf/0"),
    ],
)
def test_a_vocabulary_without_braces(
    braceless: tuple[SentencePieceTokenizer, Constraints], schema: dict[str, Any], path: str
) -> None:
    with pytest.raises(ParameterError, match=r"it has no '\{'") as caught:
        braceless[1].json_schema(schema)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_needs_no_braces_works_without_them(
    braceless: tuple[SentencePieceTokenizer, Constraints],
) -> None:
    tokenizer, constraints = braceless
    for schema in (
        {"type": "array", "items": {"type": "integer"}},
        {"anyOf": [{"type": "object"}, {"type": "string"}]},
        {},
    ):
        constraint = constraints.json_schema(schema)
        for seed in range(6):
            json.loads(wander(tokenizer, constraint, seed).text)
    answers = {wander(tokenizer, constraints.choices(["㈱山田", "！"]), s).text for s in range(8)}
    assert answers == {"㈱山田", "！"}
    with pytest.raises(ParameterError, match="it has no '@'"):
        constraints.json_schema({"type": "string", "format": "email"})


def test_a_small_vocabulary(spiece: Path) -> None:
    tokenizer = SentencePieceTokenizer(spiece, assign_special_ids(spiece, SPECIAL))
    rows, eos = tokenizer.num_pieces, tokenizer.special["</s>"]
    constraints = Constraints(tokenizer, rows=rows, ends=[eos], max_tokens=60)
    alphabet = constraints.vocabulary.alphabet or frozenset()
    letters = sorted(c for c in alphabet if c.isalpha())[:3]
    assert wander(tokenizer, constraints.choices(letters), 0).text in letters
    with pytest.raises(ParameterError, match="cannot spell '鬱': it has no '鬱'"):
        constraints.choices([letters[0], "鬱"])


def test_a_literal_of_one_piece_can_be_spelled_if_no_other_piece_starts_it() -> None:
    class Pieces:
        """A tokenizer with these pieces."""

        spells_all, special = False, dict[str, int]()

        def __init__(self, *pieces: str) -> None:
            self.pieces, self.num_pieces, self.added_ids = pieces, len(pieces), frozenset[int]()

        def piece(self, token: int) -> bytes:
            return self.pieces[token].encode()

        def is_textless(self, token: int) -> bool:
            return token == 0

        def is_byte(self, token: int) -> bool:
            return False

    def unspellable(text: str, *pieces: str) -> str | None:
        tokenizer: Any = Pieces("</s>", *pieces)
        return Vocabulary(tokenizer, rows=len(pieces) + 1, ends=[0]).unspellable(text)

    assert unspellable("<tool>山", "<tool>", "山") is None
    assert unspellable("山<tool>", "<tool>", "山") is None
    assert unspellable("<tool>", "<to") == "<"
    assert unspellable("<tool>山", "<tool>") == "<"
    # Pieces that start the literal but cannot finish it: within the text, and from before it.
    assert unspellable("<tool>山", "<tool>", "<", "山") == "t"
    assert unspellable("<tool>山", "<tool>", '"<', "山") == "<"
    assert unspellable("<tool>山", "<tool>", '"<', "tool>", "山") is None
