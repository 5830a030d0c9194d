"""The tokenizer in JavaScript: ids and texts are Python's for every text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from issun.runtime.manifest import Manifest, read_manifest
from issun.runtime.model import EMBEDDED
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from tests.web.node import ROOT, needs_node, run
from tests.web.texts import FIXED, made_up

pytestmark = needs_node
PLAIN = (ROOT / "export" / "calibration.txt").read_text(encoding="utf-8")


def check(folder: Path, texts: Iterable[str], manifest: Manifest | None = None) -> None:
    manifest = manifest or read_manifest(folder)
    tokens = manifest.tokens
    own = SentencePieceTokenizer(
        folder / tokens.file, tokens.special, do_lower_case=tokens.do_lower_case
    )
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embedded", "ja-small"])
def test_all_lines_and_5000_made_up_texts(
    name: str, shared: Path, request: pytest.FixtureRequest
) -> None:
    folder = EMBEDDED if name == "embedded" else request.getfixturevalue("ja_small")()
    files = sorted((shared / "data" / "text").iterdir())
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    check(folder, [*lines, *made_up(5000, "".join(lines[:2000]), seed=10)])
