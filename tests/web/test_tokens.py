"""The tokenizer in JavaScript: ids and texts are Python's for every text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import Manifest, Tokens, read_manifest
from issun.runtime.text.json_tokenizer import HIDDEN
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.tokenizer import load_tokenizer
from issun.web import WebError
from issun.web.tokenizers import check_tokenizer
from tests.web.node import needs_node, run
from tests.web.texts import FIXED, PLAIN, json_bundle, made_up

pytestmark = needs_node
JSON_KINDS = ["qwen", "llama3", "neox", "gpt2", "llm_jp", "llm_jp_first", "llama_bpe"]


def check(folder: Path, texts: Iterable[str], manifest: Manifest | None = None) -> None:
    manifest = manifest or read_manifest(folder)
    own = load_tokenizer(folder, manifest.tokens)
    texts = list(texts)
    found = run("tokens", folder, manifest, texts=texts)
    for text, ids, plain, decoded in zip(
        texts, found["ids"], found["plain"], found["decoded"], strict=True
    ):
        assert ids == own.encode_parts(own.split(text)), repr(text)
        assert plain == own.encode(text), repr(text)
        assert decoded == own.decode(ids), repr(text)


def test_embedded_model() -> None:
    prompt = read_manifest(EMBEDDED).prompt
    templates = [prompt.with_input, prompt.without_input, *prompt.chat.system]
    check(EMBEDDED, [*FIXED, *templates, *made_up(500, PLAIN), *PLAIN.splitlines()[:200]])


def test_lower_case() -> None:
    manifest = read_manifest(EMBEDDED)
    manifest = replace(manifest, tokens=replace(manifest.tokens, do_lower_case=True))
    check(EMBEDDED, [*FIXED, *made_up(200, PLAIN, seed=8)], manifest)


def test_control_tokens_that_are_normal_pieces(bundle: Callable[..., Path]) -> None:
    """As in files that define `[SEP]` beside the model: no text may become such an id."""
    folder = bundle("head-8")
    manifest = read_manifest(folder)
    pieces = SentencePieceTokenizer(folder / manifest.tokens.file, {})
    piece = next(i for i in range(50, 300) if len(pieces.piece(i).decode().strip()) > 1)
    special = manifest.tokens.special | {pieces.piece(piece).decode().strip(): piece}
    manifest = replace(manifest, tokens=replace(manifest.tokens, special=special))
    texts = [f"あ{text}い{text * 2}" for text in special]
    check(folder, [*FIXED, *texts, *made_up(100, PLAIN, seed=9)], manifest)


def hard_texts(tokens: Tokens) -> list[str]:
    """Spellings of control tokens, also as the file hides them; white space, cases, long runs."""
    spelled = [f"a {name} b{name}{name}\u0338{name}" for name in tokens.special]
    hidden = [f"{HIDDEN}{name}あ{HIDDEN[0]}" for name in tokens.special]
    others = ["it'ſ I'LL 'S'T we'Re", "a\u0085b \ufeffc \u0085\u0085x\u180e", "  x     y\n\n  z \n"]
    return [*spelled, *hidden, *others, "日本" * 2000, "\n" * 300, "1234567", "\u1e9b\u0323"]


@pytest.mark.sampled
@pytest.mark.parametrize("kind", JSON_KINDS)
def test_tokenizer_json(kind: str, tmp_path: Path) -> None:
    manifest = json_bundle(kind, tmp_path)
    check_tokenizer(tmp_path, manifest.tokens)
    texts = [*FIXED, *hard_texts(manifest.tokens), *made_up(300, PLAIN, seed=11)]
    check(tmp_path, [*texts, *PLAIN.splitlines()[:100]], manifest)


def test_groups_of_digits_and_whole_words_as_in_llama_3(tmp_path: Path) -> None:
    manifest = json_bundle("llama3", tmp_path)
    path = tmp_path / "tokenizer.json"
    content = path.read_text(encoding="utf-8").replace(r"|\\p{N}|", r"|\\p{N}{1,3}|", 1)
    described = json.loads(content)
    described["model"]["ignore_merges"] = True
    described["model"]["merges"] = described["model"]["merges"][:200]  # words without merges
    path.write_text(json.dumps(described), encoding="utf-8")
    check_tokenizer(tmp_path, manifest.tokens)
    texts = [*FIXED, *PLAIN.splitlines()[:50], "1234567890 12 3", *made_up(100, PLAIN, seed=12)]
    check(tmp_path, texts, manifest)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    manifest = json_bundle("metaspace", tmp_path)
    with pytest.raises(WebError, match="only byte-level BPE"):
        check_tokenizer(tmp_path, manifest.tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": None},
        {"added_tokens": [{"content": "x", "lstrip": True}]},
    ],
)
def test_unusual_byte_level_files_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    manifest = json_bundle("gpt2", tmp_path)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | change), encoding="utf-8")
    with pytest.raises(WebError, match="only byte-level BPE"):
        check_tokenizer(tmp_path, manifest.tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"decoder": {"type": "ByteFallback"}},
        {"added_tokens": [{"content": "x", "lstrip": False, "normalized": True}]},
    ],
)
def test_unusual_files_with_byte_fallback_are_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    manifest = json_bundle("llm_jp", tmp_path)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    for token in change.get("added_tokens", ()):
        token |= {"rstrip": False, "single_word": False}
    path.write_text(json.dumps(described | change), encoding="utf-8")
    with pytest.raises(WebError, match="only byte-level BPE"):
        check_tokenizer(tmp_path, manifest.tokens)


def test_a_split_by_another_pattern_is_refused(tmp_path: Path) -> None:
    manifest = json_bundle("qwen", tmp_path)
    path = tmp_path / "tokenizer.json"
    content = path.read_text(encoding="utf-8").replace(r"\\p{N}|", r"\\p{N}+|", 1)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(WebError, match="only byte-level BPE"):
        check_tokenizer(tmp_path, manifest.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embedded", "ja-small", *JSON_KINDS])
def test_all_lines_and_5000_made_up_texts(
    name: str, shared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    manifest = None
    if name in JSON_KINDS:
        folder, manifest = tmp_path, json_bundle(name, tmp_path, lines=10**6)
    else:
        folder = EMBEDDED if name == "embedded" else request.getfixturevalue("ja_small")()
    files = sorted((shared / "data" / "text").iterdir())
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    check(folder, [*lines, *made_up(5000, "".join(lines[:2000]), seed=10)], manifest)
