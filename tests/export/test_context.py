"""The context of a bundle: the checkpoint's, or fewer positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export import CheckpointError, ExportOptions, export
from issun.export.checkpoint import DEFAULT_CONTEXT, Checkpoint, limit_context, open_checkpoint
from issun.runtime import ContextError, Model, ParameterError
from tests.checkpoints import SHAPES, Shape, write_checkpoint

NAME = "head-20-width-100"
IDS = list(range(10, 74))


def test_fewer_positions_have_the_same_logits(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, short = tmp_path / "whole", tmp_path / "short"
    for folder, context in ((whole, None), (short, 64)):
        export(checkpoint(NAME), folder, ExportOptions(precision="float32", context=context))
    saved = size_of(whole) - size_of(short)
    assert saved == pytest.approx(4 * 100 * (1030 - 64), abs=4096)  # tensors begin on pages
    with Model.load(whole) as one, Model.load(short) as other:
        assert (one.decoder.n_positions, other.decoder.n_positions) == (1030, 64)
        np.testing.assert_array_equal(one.score(IDS), other.score(IDS))
        with pytest.raises(ContextError, match="65 tokens do not fit into the context of 64"):
            other.score([*IDS, 9])


def size_of(folder: Path) -> int:
    return (folder / "model.onnx.data").stat().st_size


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_every_precision_can_have_fewer_positions(
    checkpoint: Callable[[str], Path], tmp_path: Path, precision: Any
) -> None:
    options = ExportOptions(precision=precision, kv_cache="int8", context=100)
    manifest = export(checkpoint(NAME), tmp_path / "bundle", options)
    assert manifest.architecture.n_positions == 100
    with Model.load(tmp_path / "bundle") as model:
        assert model.score(IDS).shape == (64, SHAPES[NAME].vocab_size)


def limited(folder: Path, context: int | None = None) -> tuple[Checkpoint, list[tuple[int, int]]]:
    notices: list[tuple[int, int]] = []

    def notify(template: str, **values: Any) -> None:
        notices.append((values["context"], values["available"]))

    return limit_context(open_checkpoint(folder), context, notify=notify), notices


def test_a_longer_context_than_8192_has_to_be_asked_for(tmp_path: Path, spiece: Path) -> None:
    shape = Shape(n_embd=8, n_head=1, n_layer=1, n_positions=9000)
    folder = write_checkpoint(tmp_path / "checkpoint", shape, spiece)
    default, notices = limited(folder)
    assert default.network.n_positions == DEFAULT_CONTEXT == 8192
    assert default.tensors["positions.weight"].shape == (8192, 8)
    assert notices == [(8192, 9000)]
    for context in (9000, 8193, 5, 1):
        found, notices = limited(folder, context)
        table = found.tensors["positions.weight"]
        assert found.network.n_positions == context
        expected = open_checkpoint(folder).tensors["positions.weight"].read()[:context]
        np.testing.assert_array_equal(table.read(), expected)
        np.testing.assert_array_equal(table.read(1, 10_000), expected[1:])
        assert notices == []


def test_no_notice_about_a_context_that_is_not_cut(checkpoint: Callable[[str], Path]) -> None:
    found, notices = limited(checkpoint(NAME))
    assert (found.network.n_positions, notices) == (1030, [])


def test_more_positions_than_the_checkpoint_has_are_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    message = r"A context of 2,000 tokens is longer than that of .*head-20-width-100, 1,030 tokens"
    with pytest.raises(CheckpointError, match=message):
        export(checkpoint(NAME), tmp_path / "bundle", ExportOptions(context=2000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0, -5])
def test_a_context_has_at_least_one_token(value: int) -> None:
    with pytest.raises(ParameterError, match=f"context is {value}, it must be a whole number"):
        ExportOptions(context=value)
