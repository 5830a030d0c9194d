"""Bundles of format 1: they stay readable and keep their id."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from issun.runtime import BundleError, Model
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import MANIFEST_NAME, Template, read_manifest, write_manifest

RECORDED = Path(__file__).parents[1] / "recorded" / "format-1" / MANIFEST_NAME
ID = "5ba1b308d1643213b0df1299b2bbce22"  # by the version that wrote it


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The recorded manifest, and files of the sizes that it states."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copyfile(RECORDED, folder / MANIFEST_NAME)
    for name, info in json.loads(RECORDED.read_text(encoding="utf-8"))["files"].items():
        with (folder / name).open("wb") as file:
            file.truncate(info["size"])
    return folder


def test_it_is_read_as_the_model_that_it_is(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    architecture = manifest.architecture
    assert (manifest.format, architecture.family) == (1, "gpt2")
    assert architecture.n_kv_head == architecture.n_head
    assert manifest.tokens.kind == "t5"
    assert isinstance(manifest.prompt, Template)


def test_it_keeps_its_id(bundle: Path) -> None:
    assert read_manifest(bundle).bundle_id == ID


def test_it_is_written_as_it_was_read(bundle: Path) -> None:
    before = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    changed = msgspec.structs.replace(read_manifest(bundle), fidelity={"kl": 0.5})
    write_manifest(bundle, changed)
    after = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    assert after == before | {"fidelity": {"kl": 0.5}}
    assert read_manifest(bundle).bundle_id == ID


def test_it_runs(tmp_path: Path) -> None:
    """The packaged bundle with a manifest of format 1."""
    bundle = shutil.copytree(EMBEDDED, tmp_path / "bundle")
    old = json.loads(RECORDED.read_text(encoding="utf-8"))
    new = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    old |= {part: new[part] for part in ("precision", "tokens", "source", "files")}
    old["architecture"] = {name: new["architecture"][name] for name in old["architecture"]}
    (bundle / MANIFEST_NAME).write_text(json.dumps(old), encoding="utf-8")
    with Model.load(bundle, keep_packed=False) as model:
        assert model.generate(model.prompt("こんにちは"), model.default_params).ids


@pytest.mark.parametrize("part", ["architecture", "prompt"])
@pytest.mark.parametrize("value", [None, [], "x", 3, "missing"])
def test_a_damaged_one_is_refused(bundle: Path, part: str, value: object) -> None:
    path = bundle / MANIFEST_NAME
    content = json.loads(path.read_text(encoding="utf-8")) | {part: value}
    if value == "missing":
        del content[part]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match="damaged"):
        read_manifest(bundle)
