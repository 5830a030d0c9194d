"""Checkpoints in all file formats, compared with transformers."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from issun.export import CheckpointError, ExportOptions, export
from issun.runtime import Model
from tests import recordings as rec
from tests.checkpoints import SHAPES
from tests.conftest import Bundles

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
SURE_GAP = 2e-4


def assert_same(ref: ModuleType, folder: Path, bundle: Path) -> None:
    """The logits of every position and 64 greedy tokens of `bundle` equal those of transformers."""
    reference = ref.load_model(folder)
    prompts = rec.make_prompts(reference.config.vocab_size)
    expected = [ref.logits_of(reference, ids) for ids in prompts]
    tokens, gaps = ref.greedy(reference, prompts[-1], rec.NUM_GREEDY)
    with Model.load(bundle) as model:
        for ids, logits in zip(prompts, expected, strict=True):
            assert np.abs(model.score(ids) - logits).max() <= TOLERANCE
        cache = model.new_cache()
        logits = model.decoder.prefill(cache, prompts[-1])
        for token, gap in zip(tokens, gaps, strict=True):
            assert int(logits.argmax()) == token or gap < SURE_GAP
            logits = model.decoder.step(cache, token)


def export_float32(source: Path, target: Path) -> Path:
    export(source, target, ExportOptions(precision="float32"))
    return target


@pytest.mark.parametrize("name", [*SHAPES, "ja-small"])
def test_float32_logits_equal_those_of_transformers(
    ref: ModuleType, source: Bundles, tmp_path: Path, name: str
) -> None:
    assert_same(ref, source(name), export_float32(source(name), tmp_path / "bundle"))


FORMS = {
    "safetensors": "model.safetensors",
    "sharded safetensors": "model.safetensors.index.json",
    "bin": "pytorch_model.bin",
    "sharded bin": "pytorch_model.bin.index.json",
}


@pytest.mark.parametrize("name", ["head-20-width-100", "head-40-untied"])
@pytest.mark.parametrize(
    "kind", [*product(("float32", "float16", "bfloat16"), FORMS)], ids=" ".join
)
def test_checkpoints_saved_by_transformers_are_read(
    ref: ModuleType, source: Bundles, tmp_path: Path, name: str, kind: tuple[str, str]
) -> None:
    dtype, form = kind
    folder = resaved(ref, source(name), tmp_path / "saved", dtype, form)
    files = {path.name for path in folder.iterdir()}
    assert FORMS[form] in files
    assert not files & (set(FORMS.values()) - {FORMS[form]})
    assert_same(ref, folder, export_float32(folder, tmp_path / "bundle"))


def resaved(ref: ModuleType, source: Path, folder: Path, dtype: str, form: str) -> Path:
    """Save the checkpoint `source` to `folder` with transformers."""
    import torch

    model = ref.load_model(source).to(getattr(torch, dtype))
    model.save_pretrained(
        folder,
        safe_serialization="safetensors" in form,
        max_shard_size="100KB" if "sharded" in form else "1GB",
    )
    for name in ("spiece.model", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    return folder


def test_file_in_the_legacy_format_of_torch_is_read(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch

    folder = resaved(ref, checkpoint("head-8"), tmp_path / "saved", "float32", "bin")
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:2] != b"PK"
    assert_same(ref, checkpoint("head-8"), export_float32(folder, tmp_path / "bundle"))


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_that_runs_code_is_refused(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, legacy: bool
) -> None:
    import torch

    folder, mark = tmp_path / "saved", tmp_path / "executed"
    folder.mkdir()
    for name in ("config.json", "spiece.model", "tokenizer_config.json"):
        shutil.copyfile(checkpoint("head-8") / name, folder / name)
    path = folder / "pytorch_model.bin"
    torch.save({"wte.weight": Malice(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="refused"):
        export_float32(folder, tmp_path / "bundle")
    path.write_bytes(pickle.dumps({"wte.weight": Malice(mark)}))
    with pytest.raises(CheckpointError, match="refused"):
        export_float32(folder, tmp_path / "bundle")
    assert not mark.exists()
    assert not (tmp_path / "bundle").exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - it does run code where it is let
    assert mark.exists()
