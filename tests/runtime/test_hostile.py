"""Damaged bundles found by fuzzing: each is refused in one line, and nothing is printed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export import export
from issun.runtime import BundleError, SamplingParams
from issun.runtime.decoding.filters import penalize_repetition
from issun.runtime.text.spiece_tokenizer import load_sentencepiece
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime.packed import load
from tests.runtime.test_trust import change, describe, load_any


def spoil_piece(path: Path, spelling: bytes) -> None:
    """Overwrite the spelling of the piece with the id 9."""
    content = path.read_bytes()
    piece = load_sentencepiece(path).id_to_piece(9).encode()
    place = content.index(b"\x0a" + bytes([len(piece)]) + piece) + 2
    spoilt = (spelling * len(piece))[: len(piece)]
    path.write_bytes(content[:place] + spoilt + content[place + len(piece) :])


@pytest.mark.parametrize("spelling", [b"\xff", b"\x80", b"\xed\xa0\x80", b"\xe3"])
def test_pieces_that_are_not_valid_text(
    folder: Path, checkpoint: Callable[[str], Path], tmp_path: Path, spelling: bytes
) -> None:
    spoil_piece(folder / "spiece.model", spelling)
    describe(folder, "spiece.model")
    with pytest.raises(BundleError, match=r"spiece\.model is damaged: a piece is not UTF-8"):
        load_any(folder)
    source = shutil.copytree(checkpoint("unscaled"), tmp_path / "checkpoint")
    spoil_piece(source / "spiece.model", spelling)
    with pytest.raises(BundleError, match=r"spiece\.model is damaged: a piece is not UTF-8"):
        export(source, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def fields_of(model: Any) -> dict[str, Any]:
    """Return the fields that locate the largest tensor."""
    tensor = next(t for t in model.graph.initializer if t.external_data)
    return {field.key: field for field in tensor.external_data}


def set_field(key: str, value: str) -> Callable[[Any], None]:
    def act(model: Any) -> None:
        fields_of(model)[key].value = value

    return act


def rename_field(key: str, other: str) -> Callable[[Any], None]:
    def act(model: Any) -> None:
        fields_of(model)[key].key = other

    return act


PLACES: dict[str, Callable[[Any], None]] = {
    "no location": rename_field("location", "x"),
    "no offset": rename_field("offset", "x"),
    "no length": rename_field("length", "x"),
    "two lengths": rename_field("offset", "length"),
    "negative": set_field("offset", "-4096"),
    "no number": set_field("length", "1e3"),
    "digits of another script": set_field("length", "٣"),
    "behind the end": set_field("offset", "99999999"),
    "beyond 64 bits": set_field("offset", str(2**64)),
    "5,000 digits": set_field("length", "9" * 5000),
}


@pytest.mark.parametrize("act", PLACES.values(), ids=PLACES)
def test_tensors_without_a_valid_location(
    folder: Path, cache: WeightCache, act: Callable[[Any], None]
) -> None:
    change(folder, act)
    with pytest.raises(BundleError, match="does not say where the tensor"):
        load(folder)  # with packed weights
    with pytest.raises(BundleError, match="does not say where the tensor"):
        load_any(folder, trust=True)


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\x06\x0a\x04\x22\x02\xff\xfe",  # an operator
        b"\x3a\x06\x0a\x04\x3a\x02\xff\xfe",  # a domain
        b"\x3a\x06\x2a\x04\x42\x02\xff\xfe",  # a tensor
        b"\x3a\x08\x2a\x06\x6a\x04\x0a\x02\xff\xfe",  # a field of a reference
    ],
)
def test_names_that_are_not_valid_text(folder: Path, content: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + content)  # protobuf joins the parts of a message
    describe(folder, "model.onnx")
    with pytest.raises(BundleError, match="not an ONNX graph, or is damaged"):
        load_any(folder)


def test_onnx_runtime_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If its error message is not valid text, it retries and prints a notice to stdout."""

    def spoil(model: Any) -> None:
        for node in model.graph.node:
            node.MergeFromString(b"\x1a\x01\xff")  # its name
            node.input[0] = "x"

    change(folder, spoil)
    with pytest.raises(BundleError, match="cannot open"):
        load_any(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("penalty", [5e-324, 1e-300, 1e-45, 1e-31])
@pytest.mark.filterwarnings("error")
def test_tiny_repetition_penalties_stay_numbers(penalty: float) -> None:
    SamplingParams(repetition_penalty=penalty)
    logits = np.float32([3, 2, -1, 0, -np.inf, 1])
    penalize_repetition(logits, [0, 1, 2, 3, 4], penalty)
    assert np.isfinite(logits[:4]).all()
    assert list(np.argsort(-logits, kind="stable")) == [0, 1, 5, 3, 2, 4]
    assert logits[4] == -np.inf
