"""Fidelity results: by hand, and against full matrices of logits."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from issun.benchmarks import fidelity, reference
from issun.benchmarks.by_layer import by_layer
from issun.benchmarks.divergence import (
    changed_argmax,
    losses_of,
    mean_kl,
    score_windows,
)
from issun.benchmarks.errors import BenchError
from issun.benchmarks.fidelity import PACKAGED, Fidelity, compare, load_text
from issun.export.calibrate import calibration_text
from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax, row_kl
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import read_manifest

TEXT = ("made up", "山と川と海の話をしましょう。\n空は青く、雲は白い。\n" * 12)
Bundles = Callable[..., Path]


def measure(reference: Path, bundle: Path, **options: object) -> Fidelity:
    found = dict(
        compare(
            reference,
            bundle,
            TEXT,
            against="it",
            date="2026-01-01",
            kv_caches=("float32",),
            answers=2,
            **options,  # type: ignore[arg-type]
        )
    )
    return found["float32"]


@pytest.fixture(scope="module")
def exact(bundle: Bundles) -> Path:
    return bundle("unscaled", "float32")


@pytest.fixture(scope="module")
def rounded(bundle: Bundles) -> Path:
    return bundle("unscaled", "int8")


def test_divergence_by_hand() -> None:
    one, other = np.log([[0.5, 0.5], [1.0, 1e-300]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    expected = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)]
    np.testing.assert_allclose(row_kl(one, other), expected, rtol=1e-12)
    np.testing.assert_allclose(losses_of(other, [1, 0]), [-math.log(0.75), math.log(2)])
    assert mean_kl(np.float32([[0, 0]]), np.float32([[7, 7]])) == 0


def test_perplexity_and_its_error_by_hand() -> None:
    losses = np.log([2.0, 2.0, 4.0, 4.0])
    mean, error = fidelity._perplexity(losses)
    assert mean == pytest.approx(math.sqrt(8))
    spread = math.sqrt(4 * (math.log(2) / 2) ** 2 / 3)
    assert error == pytest.approx(math.sqrt(8) * spread / 2)


def test_a_model_equals_itself(exact: Path) -> None:
    found = measure(exact, exact)
    assert (found.kl_mean, found.kl_max, found.agreement, found.identical) == (0, 0, 1, 1)
    assert (found.ratio, found.ratio_error) == (1, 0)
    assert found.perplexity == found.reference_perplexity > 1
    assert (found.answers, found.top, found.against, found.date) == (2, None, "it", "2026-01-01")


@pytest.mark.slow
def test_results_equal_those_of_full_matrices(exact: Path, rounded: Path) -> None:
    found = measure(exact, rounded)
    with Model.load(exact) as model:
        ids = model.tokenizer.encode(TEXT[1])
        first = score_windows(model, ids)
    with Model.load(rounded) as model:
        second = score_windows(model, ids)
    assert len(ids) > 256  # more than one window
    assert found.positions == len(ids)
    assert found.kl_mean == pytest.approx(mean_kl(first, second), rel=1e-9)
    assert found.agreement == pytest.approx(1 - changed_argmax(first, second))
    divergence = row_kl(log_softmax(first), log_softmax(second))
    assert found.kl_max == pytest.approx(divergence.max())
    assert found.kl_median == pytest.approx(np.median(divergence))
    place = np.arange(len(ids)) % 256
    assert [(band.start, band.stop) for band in found.bands] == [(0, 32), (32, 128), (128, 256)]
    for band in found.bands:
        inside = (band.start <= place) & (place < band.stop)
        assert band.kl == pytest.approx(divergence[inside].mean())
    # The last token of a window has no target.
    predicting = [i for i in range(len(ids) - 1) if i % 256 != 255]
    losses = [-log_softmax(second[i : i + 1])[0, ids[i + 1]] for i in predicting]
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)))
    reference_losses = [-log_softmax(first[i : i + 1])[0, ids[i + 1]] for i in predicting]
    assert found.reference_perplexity == pytest.approx(math.exp(np.mean(reference_losses)))
    assert found.ratio == pytest.approx(found.perplexity / found.reference_perplexity)
    assert 0 < found.ratio_error < found.error


Usage = namedtuple("Usage", "free")


@pytest.mark.slow
def test_with_little_disk_space_the_rest_counts_as_one_token(
    exact: Path, rounded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(exact, rounded)
    monkeypatch.setattr(reference, "TOP", 64)
    monkeypatch.setattr(reference.shutil, "disk_usage", lambda _: Usage(1_200_000))
    short = measure(exact, rounded)
    assert short.top == 64
    assert 0.5 * whole.kl_mean < short.kl_mean < whole.kl_mean
    assert short.perplexity == whole.perplexity
    assert short.agreement == whole.agreement
    monkeypatch.setattr(reference.shutil, "disk_usage", lambda _: Usage(1000))
    with pytest.raises(BenchError, match="use a shorter text"):
        measure(exact, rounded)


def test_another_vocabulary_is_refused(exact: Path) -> None:
    with pytest.raises(BenchError, match="different vocabularies"):
        measure(exact, EMBEDDED)


def test_a_changed_answer_is_counted(
    exact: Path, rounded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Model.generate
    calls = iter(range(4))

    def generate(model: Model, prompt: list[int], params: object) -> object:
        completion = real(model, prompt, params)  # type: ignore[arg-type]
        changed = next(calls) == 3  # the bundle's second answer
        return replace(completion, ids=[0, *completion.ids]) if changed else completion

    monkeypatch.setattr(Model, "generate", generate)
    assert measure(exact, exact).identical == 0.5


@pytest.mark.parametrize("name", ["fidelity.txt", "encyclopedia.txt"])
def test_texts_to_measure_with_share_no_phrase_with_the_calibration_text(name: str) -> None:
    def phrases(text: str, length: int = 20) -> set[str]:
        lines = text.splitlines()
        return {line[i : i + length] for line in lines for i in range(len(line) - length + 1)}

    text = PACKAGED.with_name(name).read_text(encoding="utf-8")
    assert len(phrases(text)) > 1000
    assert not phrases(text) & phrases(calibration_text())


def test_texts(tmp_path: Path) -> None:
    name, text = load_text(None)
    assert name == "fidelity.txt"
    assert len(text.splitlines()) >= 20
    with pytest.raises(ParameterError, match="cannot be read"):
        load_text(tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ParameterError, match="contains no text"):
        load_text(tmp_path / "empty.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(ParameterError, match="cannot be read"):
        load_text(tmp_path / "bad.txt")


def test_values_clipped_by_an_int8_kv_cache_are_counted(bundle: Bundles) -> None:
    made = bundle("unscaled", "int8", kv_cache="int8")
    found = dict(
        compare(
            bundle("unscaled", "float32"),
            made,
            TEXT,
            against="it",
            date="2026-01-01",
            kv_caches=("float32", "int8"),
            answers=0,
        )
    )
    assert found["float32"].clipped is None
    assert found["int8"].clipped is not None
    assert 0 <= found["int8"].clipped < 0.01
    with Model.load(made, kv_cache="int8") as model:
        cache = model.new_cache()
        model.read(cache, model.tokenizer.encode(TEXT[1])[:20])
        assert isinstance(cache, KVCache)
        cache.buffers[0, 0, 0, :2, :3] = [[127, -127, 126], [-126, 0, -128]]
        cache.buffers[1:] = 0
        cache.buffers[0, 0, 1:] = 0
        cache.buffers[0, 0, 0, 2:] = 0
        cache.buffers[0, 0, 0, :2, 3:] = 0
        assert cache.clipped() == (3, cache.buffers[:, 0, :, :20].size)


@pytest.mark.slow
def test_the_most_sensitive_layers_come_first(
    bundle: Bundles, checkpoint: Callable[[str], Path]
) -> None:
    manifest = read_manifest(bundle("unscaled", "int4"))
    found = by_layer(checkpoint("unscaled"), manifest, TEXT[1])
    assert len(found) == 4 * manifest.architecture.n_layer
    assert {one.precision for one in found} == {"int4"}
    shares = [one.share for one in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] > 0
    finer = by_layer(checkpoint("unscaled"), read_manifest(bundle("unscaled")), TEXT[1])
    assert sum(one.share for one in finer) < sum(shares) / 4
