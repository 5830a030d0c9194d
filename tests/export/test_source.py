"""Checkpoints without a tokenizer, and tokenizers from another folder or hub id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks.small_tokenizers import train_tokenizer
from issun.export import CheckpointError, ExportOptions, TargetError, export
from issun.export.checkpoint import open_checkpoint
from issun.export.source import open_source
from issun.runtime import BundleError, Model
from issun.runtime.manifest import sha256_of
from tests.cli.conftest import issun

FILES = ("spiece.model", "tokenizer_config.json")


@pytest.fixture
def folders(checkpoint: Callable[[str], Path], tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint without its tokenizer, and a folder with only the tokenizer."""
    source = shutil.copytree(checkpoint("head-17"), tmp_path / "checkpoint")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in FILES:
        (source / name).rename(tokenizer / name)
    return source, tokenizer


def refusal(source: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        export(source, source.parent / "bundle", ExportOptions(**options))
    assert not (source.parent / "bundle").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_tokenizer_error_names_the_expected_files(folders: tuple[Path, Path]) -> None:
    source, _ = folders
    assert refusal(source) == (
        f"{source} has no tokenizer: expected one of spiece.model, sentencepiece.model, "
        "tokenizer.model, tokenizer.json. Copy the file from the base model, or name a folder or "
        "hub id that has it with --tokenizer."
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["merges.txt", "vocab.json"], "vocab.json, merges.txt"),
        (["vocab.txt"], "vocab.txt"),
    ],
)
def test_unsupported_tokenizer_files_are_named(
    folders: tuple[Path, Path], names: list[str], said: str
) -> None:
    source, _ = folders
    for name in names:
        (source / name).write_text("{}", encoding="utf-8")
    message = refusal(source)
    assert message.startswith(f"{source} has {said} but no tokenizer that issun reads: ")
    assert message.endswith("or name a folder or hub id that has it with --tokenizer.")


def test_tokenizer_folder_without_a_tokenizer(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(source, tokenizer=empty).startswith(f"{empty} has no tokenizer: ")
    assert "There is no folder" in refusal(source, tokenizer=tmp_path / "nothing")
    assert "is a file" in refusal(source, tokenizer=source / "config.json")


def test_separate_tokenizer_gives_the_same_bundle(
    folders: tuple[Path, Path], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source, tokenizer = folders
    options = ExportOptions(precision="float32", tokenizer=tokenizer)
    made = export(source, tmp_path / "bundle", options)
    whole = export(checkpoint("head-17"), tmp_path / "whole", ExportOptions(precision="float32"))
    assert made.tokens == whole.tokens
    assert made.tokens.sep == 5
    assert made.bundle_id == whole.bundle_id
    assert made.source.files == whole.source.files
    assert made.source.files["spiece.model"] == sha256_of(tokenizer / "spiece.model")
    assert (made.source.tokenizer, whole.source.tokenizer) == ("tokenizer", "")
    with Model.load(tmp_path / "bundle") as model:
        assert model.manifest.source == made.source


def test_separate_tokenizer_takes_precedence(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    train_tokenizer(other / "tokenizer.model", pieces=395)
    (other / "special_tokens_map.json").write_text(
        json.dumps({"sep_token": "[SEP]", "mask_token": "<m>"}), encoding="utf-8"
    )
    source = checkpoint("head-17")
    _, opened, _ = open_source(str(source), tokenizer=other)
    assert opened.tokenizer.path == other / "tokenizer.model"
    assert opened.tokenizer.tokens.special["<m>"] == 396  # after T5Tokenizer's default <pad>
    assert opened.tokenizer.roles["pad"] == "<pad>", "the checkpoint's own is not mixed in"
    own = open_checkpoint(source).tokenizer
    assert (own.tokens.pieces, own.tokens.pad) == (400, 4)
    sources = [
        export(source, tmp_path / name, ExportOptions(precision="float32", tokenizer=t)).source
        for name, t in (("a", None), ("b", other))
    ]
    assert sources[0].sha256 != sources[1].sha256
    assert sources[1].files["tokenizer.model"] == sha256_of(other / "tokenizer.model")


def test_tokenizer_that_does_not_fit_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, tokenizer = folders
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 399}))
    message = refusal(source, tokenizer=tokenizer)
    assert message.startswith(
        f"{tokenizer / 'spiece.model'} does not match config.json: it has 400 "
    )
    assert message.endswith("pieces; vocab_size is 399.")
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 400}))
    (tokenizer / "tokenizer_config.json").write_text('{"sep_token": "<sep>"}')
    message = refusal(source, tokenizer=tokenizer)
    assert "it has 400 pieces, <sep> has the id 400; vocab_size is 400" in message
    (tokenizer / "spiece.model").write_bytes(b"no model")
    with pytest.raises(BundleError, match="is not a SentencePiece model"):
        export(source, tmp_path / "bundle", ExportOptions(tokenizer=tokenizer))


def test_tokenizer_folder_is_never_replaced(folders: tuple[Path, Path]) -> None:
    source, tokenizer = folders
    (tokenizer / "issun.json").write_text("{}")
    for target in (tokenizer, tokenizer / "bundle"):
        with pytest.raises(TargetError, match="choose another folder"):
            export(source, target, ExportOptions(tokenizer=tokenizer, force=True))


@pytest.mark.slow
def test_command_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, tokenizer = folders
    bundle = tmp_path / "bundle"
    result = issun("export", source, "-o", bundle)
    assert result.code == 2
    assert "--tokenizer" in result.err
    result = issun("export", source, "-o", bundle, "--tokenizer", tokenizer)
    assert result.code == 0, result.err
    described = json.loads(issun("inspect", bundle, "--json").out)
    assert described["source"]["tokenizer"] == "tokenizer"
    fidelity = ("bench", "fidelity", bundle, "--against", source, "--answers", "0", "--by-layer")
    text = tmp_path / "a.txt"
    text.write_text("日本で一番高い山は富士山です。" * 20, encoding="utf-8")
    assert "--tokenizer" in issun(*fidelity, "--text", text).err
    result = issun(*fidelity, "--text", text, "--tokenizer", tokenizer)
    assert result.code == 0, result.err
