"""Raw text begins with the tokens that the tokenizer adds in front; prompts have their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from issun.runtime import Model
from issun.runtime.manifest import read_manifest, write_manifest
from tests.runtime.chats import GREEDY

BEGIN = 2


@pytest.fixture
def model(bundle: Callable[..., Path], tmp_path: Path) -> Iterator[Model]:
    folder = shutil.copytree(bundle("unscaled", "float32"), tmp_path / "bundle")
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, tokens=replace(manifest.tokens, begin=(BEGIN,))))
    with Model.load(folder, threads=1) as found:
        yield found


def test_raw_text_has_a_begin_token(model: Model) -> None:
    ids = model.tokenizer.encode("富士山は")
    assert model.encode("富士山は") == [BEGIN, *ids]
    assert model.encode(ids) == ids
    answer = model.generate([BEGIN, *ids], GREEDY)
    assert model.generate("富士山は", GREEDY).ids == answer.ids
    assert model.generate_many(["富士山は"], GREEDY)[0].ids == answer.ids
    assert model.stream("富士山は", GREEDY).finish().ids == answer.ids
    assert model.generate(ids, GREEDY).ids != answer.ids


def test_a_prompt_has_the_begin_token_of_its_template_only(model: Model) -> None:
    assert model.prompt("富士山は?").count(BEGIN) == 1
