"""Added tokens in every spelling, against T5Tokenizer loaded from the same folder."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from issun.export.checkpoint import read_tokenizer
from issun.export.template import ALPACA
from issun.runtime.manifest import Template
from issun.runtime.prompt import PromptBuilder, render
from tests.added import SPELLINGS, added_strings, write_spelling

pytestmark = pytest.mark.parity

ROWS = 512


WITH_ROLES = Template(
    name="roles",
    with_input="<s><|user|> {instruction}<tool>{input} <|im_end|>\\n<b>指示: [SEP]単語 </b> ",
    without_input="<s> <|user|>{instruction} <|im_end|> 応答:<b> ",
    newline=r"\n",
    chat=ALPACA.chat,
)
# White space beside tokens that take it, and words that begin and end with what is a token.
SLOTS = [
    "猫",
    " 猫 ",
    "\u3000猫は\t",
    "<tool>猫 <tool> ",
    "単語 猫単語",
    " </b> <b>",
    "",
    "  ",
    "😀",
]


def without_surrogates(text: str) -> str:
    return text.replace("\ud800", "\ufffd")


@pytest.mark.parametrize("lower", [False, True], ids=["", "lower"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_ids_are_those_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str, lower: bool
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    reference = ref.load_tokenizer(folder)
    reference.do_lower_case = lower
    source = read_tokenizer(folder, ROWS)
    tokenizer = replace(source, do_lower_case=lower).open()
    wrong = [
        (text, tokenizer.encode(text, special=True), expected)
        for text in added_strings(1500)
        if tokenizer.encode(text, special=True)
        != (expected := ref.encode(reference, without_surrogates(text)))
    ]
    assert not wrong[:3]
    for role in ("bos", "eos", "unk", "sep", "pad"):
        assert source.id_of(role) == getattr(reference, f"{role}_token_id")


@pytest.mark.parametrize("name", ["decoder with flags", "added_tokens.json"])
def test_prompts_have_the_ids_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    reference, tokenizer = ref.load_tokenizer(folder), read_tokenizer(folder, ROWS).open()
    prompts = PromptBuilder(WITH_ROLES, tokenizer, 1024)
    for instruction, text in itertools.product(SLOTS, [*SLOTS, None]):
        if not instruction.strip():
            continue
        whole = render(WITH_ROLES, instruction, text or None)
        assert prompts.instruction(instruction, text) == ref.encode(reference, whole), whole


@pytest.mark.parametrize("name", ["decoder with flags", "over a piece", "added_tokens.json"])
def test_texts_are_those_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    reference, tokenizer = ref.load_tokenizer(folder), read_tokenizer(folder, ROWS).open()
    wrong = []
    for text in added_strings(1000, seed=1):
        ids = [i for i in tokenizer.encode(text, special=True) if i != 1]
        decoded = reference.decode(
            ids,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
            spaces_between_special_tokens=False,
        )
        # The reference strips what stands before an added token; a stream has given that out.
        if "".join(tokenizer.decode(ids).split()) != "".join(decoded.split()):
            wrong.append((ids, tokenizer.decode(ids), decoded))
    assert not wrong[:3]
