"""A manifest that does not match its bundle is refused with a reason."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import BundleError, Model, ParameterError
from tests.conftest import Bundles


def refusal(bundle: Path, folder: Path, part: str, **changes: Any) -> str:
    shutil.copytree(bundle, folder)
    path = folder / "issun.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    (manifest[part] if part else manifest).update(changes)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        Model.load(folder, threads=1)
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "changes", "fault"),
    [
        ("tokens", {"pieces": 10}, "pieces is 10"),
        ("tokens", {"eos": 600}, "eos is 600"),
        ("tokens", {"eos": -1}, "damaged"),
        ("tokens", {"special": {"": 5}}, "a special token is empty"),
        ("tokens", {"special": {"[SEP]": 5}}, "the tokenizer has no <s>"),
        ("architecture", {"n_head": 8}, "heads of (16, 8), not (8, 8)"),
        ("architecture", {"kv_head_dim": 16}, "heads of (16, 8), not (16, 16)"),
        ("architecture", {"n_layer": 4}, "3 layers, not 4"),
        ("architecture", {"vocab_size": 600}, "512 ids, not 600"),
        ("architecture", {"n_positions": 10**13}, "damaged"),
        ("", {"graph": "optimum"}, "which issun does not export"),
        ("", {"format": 0}, "damaged"),
        ("sampling", {"logit_bias": 5}, "sampling defaults are invalid"),
        ("sampling", {"seed": 10**400}, "sampling defaults are invalid"),
        ("prompt", {"with_input": "{instruction}"}, "with_input lacks {input}"),
    ],
)
def test_refused(
    part: str, changes: dict[str, Any], fault: str, bundle: Bundles, tmp_path: Path
) -> None:
    assert fault in refusal(bundle("head-8"), tmp_path / "bundle", part, **changes)


def test_unknown_kv_cache(bundle: Bundles) -> None:
    with pytest.raises(ParameterError, match="it must be one of float32, int8"):
        Model.load(bundle("head-8"), kv_cache="int4")  # type: ignore[arg-type]
