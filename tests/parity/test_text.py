"""Tokenizers and chat, compared with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from issun.runtime import Conversation, Model, SamplingParams, Turn
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from tests import recordings as rec
from tests.conftest import Bundles
from tests.special_ids import assign_special_ids
from tests.strings import SPECIAL, generate_strings

pytestmark = pytest.mark.parity


@pytest.mark.sampled
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("name", rec.TOKENIZERS)
def test_ids_equal_those_of_transformers(
    ref: ModuleType, shared: Path, name: str, lower: bool
) -> None:
    file = shared / rec.TOKENIZERS[name]
    reference = ref.make_tokenizer(file, do_lower_case=lower)
    roles = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    tokens = [getattr(reference, f"{role}_token") for role in roles]
    assert set(tokens) == set(SPECIAL)
    tokenizer = SentencePieceTokenizer(file, assign_special_ids(file, tokens), do_lower_case=lower)
    lines = [line for text in rec.TEXTS for line in rec.lines_of(shared / "data" / "text" / text)]
    wrong = [
        text
        for text in [*generate_strings(), *generate_strings(seed=1), *lines]
        if tokenizer.encode(text, special=True) != ref.encode(reference, text)
    ]
    assert not wrong


@pytest.mark.sampled
@pytest.mark.parametrize("name", rec.CHATS)
def test_conversation_equals_that_of_the_published_code(
    ref: ModuleType, source: Bundles, ja_small: Bundles, name: str
) -> None:
    folder, (role, history) = source("ja-small"), rec.CHATS[name]
    reference, tokenizer = ref.load_model(folder), ref.make_tokenizer(folder / "spiece.model")
    expected = ref.chat(reference, tokenizer, role, history, rec.QUESTIONS)
    recorded = json.loads((rec.RECORDED / "transcripts.json").read_text(encoding="utf-8"))
    assert [turn["ids"] for turn in expected] == [turn["ids"] for turn in recorded[name]]
    params = SamplingParams(temperature=0, max_new_tokens=100)
    with Model.load(ja_small("float32")) as model:
        turns = [
            Turn(question.removeprefix("User:"), answer.removeprefix("Assistant:"))
            for question, answer in zip(history[::2], history[1::2], strict=True)
        ]
        for turn in expected:
            # For each message the published code drops as few turns as necessary.
            least = rec.fewest_dropped(model, role, turns, turn["question"])
            conversation = Conversation(model, role, params=params)
            conversation.turns += turns[least:]
            answer = conversation.reply(turn["question"])
            turns.append(conversation.turns[-1])
            assert (answer.ids, answer.text) == (turn["ids"], turn["text"])
