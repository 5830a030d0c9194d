"""Answers end within their token budget though some characters take several tokens."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from issun.benchmarks.small_tokenizers import vocabulary_text
from issun.export.tokenizer import read_tokenizer
from issun.runtime.constraint.constraints import Constraints
from issun.runtime.constraint.matching import Constraint
from issun.runtime.text.tokenizer import Tokenizer
from tests import json_tokenizers, spiece_tokenizers
from tests.runtime.wandering import wander

pytest.importorskip("llguidance")
ROWS = 4000
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SCHEMAS: dict[str, Any] = {
    "a string": {"type": "string"},
    "an object": NAME | {"additionalProperties": False},
    "strings": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    "a long string": {"type": "string", "minLength": 30},
    "listed": {"enum": ["𠮷野家🐭", "a"]},
    "a listed name": {
        "type": "object",
        "properties": {"🐭𠮷": {"const": "🐭" * 8}, "b": {"type": "string"}},
        "required": ["🐭𠮷", "b"],
        "additionalProperties": False,
    },
    "anything": {"type": "object"},
}


@pytest.fixture(scope="module", params=["qwen", "llm_jp", "rinna"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    folder, lines = tmp_path_factory.mktemp("tokenizer"), vocabulary_text().splitlines()
    kinds: Any = spiece_tokenizers if request.param == "rinna" else json_tokenizers
    return read_tokenizer(kinds.write_folder(request.param, lines, folder), ROWS).open()


@pytest.fixture(scope="module")
def constraints(tokenizer: Tokenizer) -> Constraints:
    ends = sorted(tokenizer.special.values())[-2:]
    return Constraints(tokenizer, rows=ROWS, ends=ends, max_tokens=100)


def waste(constraint: Constraint, room: int) -> list[int]:
    """An answer of the tokens that write the least, up to the end token or `room` tokens."""
    pieces, matcher, ids = constraint.vocabulary.pieces, constraint.start(), list[int]()
    begun = np.array([sum(byte & 0xC0 != 0x80 for byte in piece) for piece in pieces])
    size = np.array([len(piece) for piece in pieces])
    lead = np.array([piece[0] if len(piece) == 1 else 0 for piece in pieces])
    worst = np.lexsort((-lead, size, begun))  # the first byte of the longest characters
    while len(ids) < room:
        logits = matcher.apply_mask(np.zeros(len(pieces), np.float32), ids)
        allowed = [i for i in worst if logits[i] == 0]
        token = next((i for i in allowed if i not in constraint.vocabulary.ends), allowed[0])
        ids.append(int(token))
        if token in constraint.vocabulary.ends:
            return ids
    return ids


@pytest.mark.parametrize("room", [60, 100])
@pytest.mark.parametrize("name", SCHEMAS)
def test_json(tokenizer: Tokenizer, constraints: Constraints, name: str, room: int) -> None:
    constraint = constraints.json_schema(SCHEMAS[name], max_tokens=room)
    ids = waste(constraint, room)
    assert ids[-1] in constraints.vocabulary.ends
    json.loads(tokenizer.decode(ids[:-1]))
    for seed in range(4):
        assert wander(tokenizer, constraint, seed, room).ended


@pytest.mark.parametrize("pattern", [r"[^\n]*", r"[^は:]*は(富士山🗻|𠮷)。?"])
def test_patterns(constraints: Constraints, pattern: str) -> None:
    constraint = constraints.regex(pattern, max_tokens=50)
    assert waste(constraint, 50)[-1] in constraints.vocabulary.ends


def test_emoji_are_written_while_there_is_room(
    tokenizer: Tokenizer, constraints: Constraints
) -> None:
    constraint = constraints.json_schema(SCHEMAS["an object"], max_tokens=100)
    ids = tokenizer.encode('{"name":"むかし👨と𠮷と🐭"}')
    matcher = constraint.start()
    for at, token in enumerate(ids):
        if token not in tokenizer.encode(" "):
            assert matcher.apply_mask(np.zeros(ROWS, np.float32), ids[:at])[token] == 0


def test_choices_of_emoji_need_the_tokens_of_their_bytes(constraints: Constraints) -> None:
    constraint = constraints.choices(["🐭" * 4, "𠮷"], max_tokens=18)
    assert waste(constraint, 18)[-1] in constraints.vocabulary.ends
