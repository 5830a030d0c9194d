"""Constrained answers with the vocabularies of every kind of tokenizer."""

from __future__ import annotations

import json
import re

import pytest

from issun.benchmarks.small_tokenizers import vocabulary_text
from issun.export.tokenizer import read_tokenizer
from issun.runtime.constraint.constraints import Constraints
from issun.runtime.text.tokenizer import Tokenizer
from tests import json_tokenizers, spiece_tokenizers
from tests.runtime.wandering import wander

for name in ("llguidance", "tokenizers"):
    pytest.importorskip(name)
ROWS = 4096
JSON, SPIECE = ("qwen", "neox", "llm_jp", "llama_bpe"), ("rinna", "llama-bpe", "llama-bpe-later")
Made = tuple[Tokenizer, Constraints]


@pytest.fixture(scope="module", params=(*JSON, *SPIECE))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    lines, folder = vocabulary_text().splitlines(), tmp_path_factory.mktemp(request.param)
    kinds = json_tokenizers if request.param in JSON else spiece_tokenizers
    source = read_tokenizer(kinds.write_folder(request.param, lines, folder), ROWS)
    tokenizer, ends = source.open(), {source.tokens.eos, *source.tokens.ends}
    newline = "<NL>" if request.param == "rinna" else ""
    return tokenizer, Constraints(
        tokenizer, rows=ROWS, ends=ends - {None}, newline=newline, max_tokens=100
    )


@pytest.mark.parametrize(
    "text", ["富士山", "𠮷野家😀", "a\nb", "<think>", "<|im_end|>", "</s>", "単語"]
)
def test_a_choice_is_written_exactly(made: Made, text: str) -> None:
    tokenizer, constraints = made
    one, two = constraints.choices([text]), constraints.choices([text, "いいえ"])
    for seed in range(4):
        assert wander(tokenizer, one, seed).text == text
        assert wander(tokenizer, two, seed).text in (text, "いいえ")


@pytest.mark.parametrize(
    "pattern", ["[ぁ-ん]{2,4}です。", r"[^\x00-\x7f]{3}", r"(山|川)\n[0-9]+x", "(<NL>|😀| 。){1,3}"]
)
def test_a_pattern_matches_the_text(made: Made, pattern: str) -> None:
    tokenizer, constraints = made
    constraint = constraints.regex(pattern, max_tokens=60)
    for seed in range(6):
        answer = wander(tokenizer, constraint, seed, room=60)
        assert answer.ended
        assert re.fullmatch(pattern, answer.text.lstrip(" ")), answer


SCHEMA = {
    "type": "object",
    "properties": {
        "名前": {"enum": ["富士山", "琵琶湖\n", "𠮷 野"]},
        "高さ": {"type": "integer", "minimum": 1, "maximum": 9999},
        "説明": {"type": "string", "maxLength": 12},
        "かな": {"type": "string", "pattern": "^[ァ-ヶー]{1,5}$"},
    },
    "required": ["名前", "高さ", "説明", "かな"],
    "additionalProperties": False,
}


def test_a_schema_is_followed(made: Made) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    tokenizer, constraints = made
    constraint = constraints.json_schema(SCHEMA, max_tokens=200)
    for seed in range(6):
        answer = wander(tokenizer, constraint, seed, room=200)
        assert answer.ended
        jsonschema.validate(json.loads(answer.text), SCHEMA)


def test_no_control_token_is_part_of_an_answer(made: Made) -> None:
    tokenizer, constraints = made
    constraint = constraints.regex("(?s:.){1,20}")
    for seed in range(4):
        answer = wander(tokenizer, constraint, seed)
        assert not {*tokenizer.special.values()}.intersection(answer.ids)
