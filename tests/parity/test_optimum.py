"""Bundles exported with Optimum, compared with transformers and issun's own bundles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from issun.benchmarks.divergence import mean_kl, score_windows
from issun.export import CheckpointError, ExportOptions, export
from issun.runtime import Model
from tests import recordings as rec
from tests.conftest import Bundles
from tests.parity.test_checkpoints import assert_same

pytestmark = pytest.mark.parity

# With odd head widths, without the prefix, in float16, and with scales that sdpa ignores.
NAMES = ("head-17", "float16", "scaled-by-layer", "ja-small")
FILES = {"issun.json", "model.onnx", "model.onnx.data", "spiece.model"}


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_float32_logits_equal_those_of_transformers(
    ref: ModuleType, source: Bundles, optimum: Bundles, name: str
) -> None:
    bundle = optimum(name, "float32")
    assert {path.name for path in bundle.iterdir()} == FILES
    assert_same(ref, source(name), bundle)


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_int8_has_every_linear_quantized_and_rewinds(optimum: Bundles, name: str) -> None:
    bundle = optimum(name, "int8")
    assert {path.name for path in bundle.iterdir()} == FILES
    with Model.load(bundle) as model:
        layers = model.manifest.architecture.n_layer
        operators = [node.op_type for node in ir.load(bundle / "model.onnx").graph]
        assert "Gemm" not in operators
        assert operators.count("MatMulInteger") == 4 * layers + 1
        assert operators.count("MatMul") == 2 * layers  # attention products, which have no weights
        ids = rec.make_prompts(model.decoder.vocab_size)[-1]
        cache = model.new_cache()
        first = model.decoder.prefill(cache, ids[:20])
        second = model.decoder.step(cache, ids[20])
        model.decoder.prefill(cache, ids[30:])
        cache.rewind(20)
        assert np.array_equal(model.decoder.step(cache, ids[20]), second)
        cache.rewind(0)
        assert np.array_equal(model.decoder.prefill(cache, ids[:20]), first)


@pytest.mark.sampled
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_external_weights_of_optimum_are_included(
    source: Bundles,
    optimum: Bundles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    expected = optimum("head-17", precision)
    # As Optimum does for models larger than 2 GB.
    monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")
    bundle = tmp_path / "bundle"
    export(source("head-17"), bundle, ExportOptions(precision=precision, via="optimum"))
    assert {path.name for path in bundle.iterdir()} == FILES
    ids = rec.make_prompts(500)[-1]
    with Model.load(bundle) as model, Model.load(expected) as small:
        assert np.array_equal(model.score(ids), small.score(ids))


@pytest.mark.slow
def test_int8_is_close_to_float32(ja_small: Bundles, optimum: Bundles, shared: Path) -> None:
    text = (shared / "data" / "text" / "novel-eval.txt").read_bytes()[:20_000]
    logits = []
    for bundle in (ja_small("float32"), optimum("ja-small", "int8")):
        with Model.load(bundle) as model:
            ids = model.tokenizer.encode(text.decode("utf-8", "ignore"))
            logits.append(score_windows(model, ids))
    assert 1e-6 < mean_kl(*logits) <= 0.002


def test_conversation_continues_past_the_context(optimum: Bundles) -> None:
    with Model.load(optimum("head-17", "float32")) as model:
        full = model.manifest.architecture.n_positions
        answer = model.generate(list(range(7, 7 + full - 3)))
        assert len(answer.ids) == 3
        assert answer.finish_reason == "length"


def test_export_is_quiet_and_does_not_load_a_tokenizer(
    ref: ModuleType,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx is not installed")
    source = tmp_path / "source"
    shutil.copytree(checkpoint("bfloat16-sharded"), source)
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "NoSuchTokenizer"}
    (source / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    notices: list[tuple[str, int, int]] = []
    export(
        source,
        tmp_path / "bundle",
        ExportOptions(precision="int8", via="optimum"),
        progress=lambda stage, done, total: notices.append((stage, done, total)),
    )
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    for stage in ("optimum", "write"):
        done = [(d, t) for s, d, t in notices if s == stage]
        assert done[-1][0] == done[-1][1] > 0


def test_linear_layer_left_in_float32_is_an_error(
    ref: ModuleType,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx is not installed")
    monkeypatch.setattr(
        "onnxruntime.quantization.quantize_dynamic",
        lambda source, target, **options: shutil.copyfile(source, target),
    )
    with pytest.raises(CheckpointError, match="left 8 linear layers in float32"):
        export(
            checkpoint("head-17"),
            tmp_path / "bundle",
            ExportOptions(precision="int8", via="optimum"),
        )
    assert list(tmp_path.iterdir()) == []
