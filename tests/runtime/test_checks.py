"""A manifest that does not match its bundle is refused with a reason."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import BundleError, Model, ParameterError
from issun.runtime.manifest import sha256_of
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
        ("tokens", {"begin": [2, 600]}, "begin id 600 is 600"),
        ("tokens", {"ends": [600]}, "end id 600 is 600"),
        ("tokens", {"special": {"": 5}}, "a special token is empty"),
        ("tokens", {"special": {"[SEP]": 5}}, "the tokenizer has no <s>"),
        ("architecture", {"n_kv_head": 8}, "heads of (16, 8), not (8, 8)"),
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


@pytest.mark.parametrize("name", [b"rows", b"capacity"])
def test_a_name_of_an_output_that_is_not_utf_8(
    name: bytes, bundle: Bundles, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundle("head-8"), tmp_path / "bundle")
    graph = folder / "model.onnx"
    content = graph.read_bytes()
    before, after = content.rsplit(name, 1)  # outputs come last
    graph.write_bytes(before + name[:2] + b"\x90" + name[3:] + after)
    manifest = json.loads((folder / "issun.json").read_text(encoding="utf-8"))
    manifest["files"]["model.onnx"]["sha256"] = sha256_of(graph)
    (folder / "issun.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="a name in the graph is not UTF-8"):
        Model.load(folder, threads=1, trust=True)


def test_unknown_kv_cache(bundle: Bundles) -> None:
    with pytest.raises(ParameterError, match="it must be one of float32, int8"):
        Model.load(bundle("head-8"), kv_cache="int4")  # type: ignore[arg-type]


JINJA = {
    "kind": "jinja",
    "name": "mine",
    "source": "{{ messages[0].content }}",
    "variables": {},
    "takes_system": True,
    "newline": "",
    "reserve": 10,
}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"source": "{% for"}, "template mine failed: unexpected 'end of template' (line 1)"),
        ({"source": "{{ raise_exception('no') }}"}, "template mine failed: no"),
        ({"source": "{#" + "x" * 200_000 + "#}"}, "source has 200,004 characters"),
        ({"source": "x" * (1 << 20)}, "larger than a manifest can be"),
        ({"source": 5}, "damaged (Expected `str`, got `int`"),
        ({"variables": {"bos_token": 5}}, "damaged"),
        ({"variables": []}, "damaged"),
        ({"takes_system": "yes"}, "damaged"),
        ({"reserve": 0}, "reserve is 0, below 1"),
        ({"kind": "mako"}, "damaged (Invalid value 'mako'"),
        ({"name": "m\nm", "source": "{{ 'a' * 10**11 }}"}, "needs too much memory"),
        ({"variables": {"messages": "x"}, "source": "{{ messages[1].content }}"}, "no element 1"),
    ],
)
def test_a_chat_template_that_cannot_be_used(
    changes: dict[str, Any], fault: str, bundle: Bundles, tmp_path: Path
) -> None:
    found = refusal(bundle("head-8"), tmp_path / "bundle", "", prompt=JINJA | changes)
    assert fault in found


def test_a_chat_template_without_jinja2(
    bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issun.runtime.text.jinja.find_spec", lambda name: None)
    found = refusal(bundle("head-8"), tmp_path / "bundle", "", prompt=JINJA)
    assert 'The prompt template mine needs jinja2: pip install "issun[models]"' in found
