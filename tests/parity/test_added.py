"""Added tokens in every spelling, against T5Tokenizer loaded from the same folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from issun.export.checkpoint import read_tokenizer
from issun.runtime.prompt import PromptBuilder, render
from tests.added import SPELLINGS, added_strings, write_spelling

pytestmark = pytest.mark.parity

ROWS = 512


def load(ref: ModuleType, folder: Path) -> Any:
    from transformers import T5Tokenizer

    return T5Tokenizer.from_pretrained(folder, local_files_only=True)


def without_surrogates(text: str) -> str:
    return text.replace("\ud800", "\ufffd")


@pytest.mark.parametrize("lower", [False, True], ids=["", "lower"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_ids_are_those_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str, lower: bool
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    reference = load(ref, folder)
    reference.do_lower_case = lower
    source = read_tokenizer(folder, ROWS)
    from dataclasses import replace
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
