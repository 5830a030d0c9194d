"""A small model, a conversation with it, and a weight cache for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.runtime import Conversation, Model
from issun.runtime.manifest import read_manifest
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.weights import weight_cache
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime.chats import GREEDY, ROLE
from tests.runtime.decoders import Script, ScriptedDecoder, Ticks


@pytest.fixture(scope="module")
def model(bundle: Callable[..., Path]) -> Model:
    return Model.load(bundle("unscaled", "float32"), threads=1)


@pytest.fixture
def chat(model: Model) -> Conversation:
    return Conversation(model, ROLE, params=GREEDY)


@pytest.fixture
def scripted(bundle: Callable[..., Path]) -> Callable[..., Model]:
    """`scripted(script)`: a model that generates what the script returns."""
    folder = bundle("unscaled", "float32")
    manifest = read_manifest(folder)
    tokenizer = SentencePieceTokenizer(folder / manifest.tokens.file, manifest.tokens.special)

    def make(script: Script) -> Model:
        decoder = ScriptedDecoder(script, n_positions=256, vocab_size=512)
        return Model(decoder, tokenizer, manifest, clock=Ticks())

    return make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightCache:
    monkeypatch.setenv("ISSUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_cache, "MIN_BUNDLE_BYTES", 0)
    found = weight_cache.default_cache()
    assert found is not None
    return found


@pytest.fixture
def folder(bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return shutil.copytree(bundle("head-20-width-100"), tmp_path / "bundle")
