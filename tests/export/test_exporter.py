"""Export of a checkpoint to a self-describing bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from issun.export import CheckpointError, ExportOptions, TargetError, export
from issun.export.template import ALPACA
from issun.runtime import Model, ParameterError, SamplingParams
from issun.runtime.manifest import FORMAT_VERSION, Manifest, read_manifest, verify_hashes
from tests.checkpoints import SHAPES

NAME = "head-17"


@pytest.fixture
def source(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may change."""
    return shutil.copytree(checkpoint(NAME), tmp_path / "source")


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def change(path: Path, **changes: Any) -> None:
    write(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def template(**changes: Any) -> Any:
    return msgspec.to_builtins(ALPACA) | changes


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(source: Path, **options: Any) -> str:
    """The error message of a refused export, which must not start a stage or leave files."""
    target, stages = source.parent / "bundle", []
    with pytest.raises(CheckpointError) as caught:
        export(
            source,
            target,
            ExportOptions(**options),
            progress=lambda stage, *_: stages.append(stage),
        )
    assert stages == []
    assert not target.exists()
    assert not list(source.parent.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the manifest ---


@pytest.mark.sampled
@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_the_manifest_is_complete(source: Path, precision: Any, kv_cache: Any) -> None:
    target = source.parent / "bundle"
    manifest = export(source, target, ExportOptions(precision=precision, kv_cache=kv_cache))
    assert read_manifest(target) == manifest
    verify_hashes(target, manifest)
    raw = json.loads((target / "issun.json").read_text(encoding="utf-8"))
    assert set(raw) == set(Manifest.__struct_fields__)

    shape, architecture = SHAPES[NAME], manifest.architecture
    assert manifest.format == FORMAT_VERSION
    assert manifest.exporter.startswith("issun ")
    assert manifest.graph == "issun"
    for field in (
        "n_layer",
        "n_embd",
        "n_head",
        "n_positions",
        "vocab_size",
        "activation_function",
    ):
        assert getattr(architecture, field) == getattr(shape, field)
    assert architecture.n_inner == 4 * shape.n_embd
    assert architecture.kv_head_dim == -(-shape.n_embd // shape.n_head // 8) * 8 == 24
    assert manifest.precision.name == precision
    assert {"float32": "float32", "int8": "int8", "int4": "4-bit"}[precision] in (
        manifest.precision.linears
    )
    assert manifest.kv_cache == kv_cache
    graphs = {"float32": "model.onnx", "int8": "model.kv-int8.onnx"}
    assert manifest.graphs == (graphs if kv_cache == "int8" else {"float32": "model.onnx"})
    others = {"model.onnx.data", "smoothing.safetensors", "spiece.model"}
    assert set(manifest.files) == others | set(manifest.graphs.values())
    assert manifest.prompt == ALPACA
    assert manifest.fidelity == {}

    tokens = manifest.tokens
    assert (tokens.file, tokens.pieces, tokens.do_lower_case) == ("spiece.model", 400, False)
    assert (tokens.bos, tokens.eos, tokens.unk, tokens.pad, tokens.sep) == (2, 3, 1, 4, 5)
    assert tokens.special["[MASK]"] == 6

    hashes = {n: sha256(source / n) for n in ("model.safetensors", "spiece.model")}
    assert manifest.source.files == hashes
    assert manifest.source.name == "source"
    assert manifest.source.revision is None
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    assert manifest.source.sha256 == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.sampled
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_exports_are_reproducible(source: Path, precision: Any) -> None:
    one, other = (
        export(source, source.parent / name, ExportOptions(precision=precision, kv_cache="int8"))
        for name in ("one", "other")
    )
    assert one == other
    assert one.bundle_id == other.bundle_id
    for name in one.files:
        assert (source.parent / "one" / name).read_bytes() == (
            source.parent / "other" / name
        ).read_bytes()


@pytest.mark.slow
def test_the_model_id_depends_on_the_precision(source: Path) -> None:
    ids = {
        export(
            source, source.parent / f"{p}-{kv}", ExportOptions(precision=p, kv_cache=kv)
        ).bundle_id
        for p in ("float32", "int8", "int4")
        for kv in ("float32", "int8")
    }
    assert len(ids) == 6


@pytest.mark.slow
def test_the_bundle_does_not_need_the_checkpoint(source: Path) -> None:
    target = source.parent / "bundle"
    export(source, target)
    shutil.rmtree(source)  # the bundle must not need it
    model = Model.load(target, threads=1)
    assert model.generate("山", SamplingParams(temperature=0, max_new_tokens=3)).ids
    logits = model.score(list(range(50)))
    assert logits.shape == (50, SHAPES[NAME].vocab_size)
    assert np.all(np.isfinite(logits))
    assert logits.std() > 0.5


def test_the_kv_cache_can_be_chosen_at_load_time(source: Path) -> None:
    target = source.parent / "bundle"
    export(source, target, ExportOptions(precision="float32", kv_cache="int8"))
    ids = list(range(60))
    one = Model.load(target, threads=1).score(ids)
    other = Model.load(target, threads=1, kv_cache="float32").score(ids)
    assert not np.array_equal(one, other)
    assert (one - other).std() < 0.1 * other.std()


# --- progress ---


def test_progress_counts_up_to_the_total(source: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    export(
        source,
        source.parent / "bundle",
        ExportOptions(kv_cache="int8"),
        progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    assert list(seen) == ["calibrate", "write", "hash"]
    for steps in seen.values():
        done = [step[0] for step in steps]
        assert done == sorted(done)
        assert {step[1] for step in steps} == {done[-1]}
    size = (source.parent / "bundle" / "model.onnx.data").stat().st_size
    assert 0.5 * size < seen["write"][-1][1] <= 1.1 * size
    assert seen["hash"][-1][1] == sum(
        (source / name).stat().st_size for name in ("model.safetensors", "spiece.model")
    )


# --- sampling, template, tokens ---


def test_default_sampling_without_a_generation_config(source: Path) -> None:
    manifest = export(source, source.parent / "bundle")
    defaults = SamplingParams()
    assert manifest.sampling["temperature"] == 0.7
    assert all(getattr(defaults, name) == value for name, value in manifest.sampling.items())
    assert Model.load(source.parent / "bundle", threads=1).default_params == defaults


def test_sampling_from_the_checkpoint(source: Path) -> None:
    write(
        source / "generation_config.json",
        {
            "temperature": 0.5,
            "top_k": 40,
            "top_p": 0.9,
            "repetition_penalty": None,
            "num_beams": 4,
            "max_length": 7,
        },
    )
    export(source, source.parent / "bundle")
    params = Model.load(source.parent / "bundle", threads=1).default_params
    assert params == SamplingParams(temperature=0.5, top_k=40, top_p=0.9)


@pytest.mark.parametrize("bad", [{"top_p": 2}, {"temperature": "warm"}, {"top_k": 1.5}])
def test_invalid_sampling_in_the_checkpoint(source: Path, bad: dict[str, Any]) -> None:
    write(source / "generation_config.json", bad)
    name, value = next(iter(bad.items()))
    assert f"generation_config.json: {name} is {value!r}" in refusal(source)


@pytest.mark.slow
def test_a_custom_template(source: Path) -> None:
    path = write(
        source.parent / "template.json",
        template(name="mine", without_input="<s>{instruction}[SEP]", newline="<br>"),
    )
    manifest = export(source, source.parent / "bundle", ExportOptions(template=path))
    assert manifest.prompt.name == "mine"
    model = Model.load(source.parent / "bundle", threads=1)
    assert model.prompt("山\n川") == [2, *model.tokenizer.encode("山<br>川"), 5]
    other = export(source, source.parent / "other")
    assert other.bundle_id != manifest.bundle_id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a valid template"),
        ("[]", "is not a valid template"),
        (json.dumps({"name": "mine"}), "is not a valid template: .*`with_input`"),
        (json.dumps(template(newline=5)), "is not a valid template: .*newline"),
        ("\udcff", "is not a valid template"),
    ],
)
def test_a_damaged_template(source: Path, content: str, message: str) -> None:
    path = source.parent / "template.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=message):
        export(source, source.parent / "bundle", ExportOptions(template=path))


def test_a_missing_template_file(source: Path) -> None:
    assert "no.json cannot be read" in refusal(source, template=source.parent / "no.json")


def test_a_template_token_that_the_tokenizer_lacks(source: Path) -> None:
    change(source / "tokenizer_config.json", sep_token=None)
    message = refusal(source, template="alpaca-japanese")
    assert "template alpaca-japanese is invalid: the tokenizer has no [SEP]." in message
    assert "--template FILE" in message
    path = write(
        source.parent / "mine.json",
        template(with_input="{instruction}:{input}", without_input="{instruction}"),
    )
    export(source, source.parent / "bundle", ExportOptions(template=path))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"with_input": "{instruction}"}, "with_input lacks {input}"),
        ({"without_input": "{instrucion}"}, "without_input has {instrucion}"),
        ({"without_input": "<|user|>{instruction}"}, "the tokenizer has no <|user|>"),
        ({"without_input": "{instruction}[EOS]"}, "the tokenizer has no [EOS]"),
        ({"chat": {"user": "User"}}, "chat.user lacks {message}"),
        ({"chat": {"reserve": 0}}, "chat.reserve is 0, below 1"),
    ],
)
def test_an_invalid_template(source: Path, changes: dict[str, Any], fault: str) -> None:
    content = template()
    content["chat"] |= changes.pop("chat", {})
    path = write(source.parent / "mine.json", content | changes)
    assert fault in refusal(source, template=path)


def test_a_special_id_beyond_the_vocabulary(source: Path) -> None:
    change(source / "config.json", vocab_size=400)
    change(source / "tokenizer_config.json", sep_token="<sep>")  # noqa: S106
    assert "<sep> has the id 400; vocab_size is 400" in refusal(source)


# --- invalid options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int2"}, "precision is 'int2', it must be one of float32, int8, int4"),
        ({"kv_cache": "int4"}, "kv_cache is 'int4', it must be one of float32, int8"),
        ({"via": "torch"}, "via is 'torch', it must be one of issun, optimum"),
        ({"via": "optimum", "precision": "int4"}, "Optimum supports .* not int4"),
        ({"via": "optimum", "kv_cache": "int8"}, "Optimum supports .* not an int8 KV cache"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ExportOptions(**options)


def test_the_target_is_checked_before_the_source(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(TargetError, match="exists"):
        export("someone/never-asked-for", tmp_path / "bundle")


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        export(tmp_path / "no", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_tilde_and_strings_are_accepted_as_paths(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(source.parent))
    export("~/source", "~/bundle")
    read_manifest(source.parent / "bundle")
