"""Adapters that PEFT trained, at run time: text, logits and divergence beside the merged model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from issun.benchmarks.divergence import Logits, mean_kl
from issun.export import AdapterSource, ExportOptions, export
from issun.export.bundle_adapter import make_adapter
from issun.runtime import Adapter, Model, SamplingParams

pytestmark = pytest.mark.parity

STEPS, LENGTH, WINDOW = 20, 128, 400
GREEDY = SamplingParams(temperature=0, max_new_tokens=64)
NAMES = ["ja-small", "tiny-llama"]
TARGETS = {
    "ja-small": ["c_attn", "c_proj", "c_fc"],
    "tiny-llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
Find = Callable[..., Path]
Load = Callable[..., Model]


@pytest.fixture(scope="module")
def text(shared: Path) -> str:
    return (shared / "data" / "text" / "novel-eval.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def training_text(shared: Path) -> str:
    whole = (shared / "data" / "text" / "novel-train.txt").read_text(encoding="utf-8")
    return whole[:20_000]


@pytest.fixture(scope="module")
def source(shared: Path) -> Find:
    """`source(name)`: the folder of a small trained model."""

    def find(name: str) -> Path:
        path = shared / "checkpoints" / name
        if not path.is_dir():
            pytest.skip(f"there is no checkpoint at {path}")
        return path

    return find


@pytest.fixture(scope="module")
def exported(source: Find, tmp_path_factory: pytest.TempPathFactory) -> Find:
    """`exported(name, precision)`: the bundle, without an adapter."""
    folder = tmp_path_factory.mktemp("bundles")

    @cache
    def find(name: str, precision: str) -> Path:
        options = ExportOptions(precision=cast(Any, precision))
        export(source(name), folder / f"{name}-{precision}", options)
        return folder / f"{name}-{precision}"

    return find


@pytest.fixture(scope="module")
def trained(
    source: Find, exported: Find, training_text: str, tmp_path_factory: pytest.TempPathFactory
) -> Find:
    """`trained(name)`: an adapter after 20 steps on one text."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    peft = pytest.importorskip("peft", reason='peft is not installed: pip install "issun[dev]"')
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("trained")

    @cache
    def train(name: str) -> Path:
        torch.manual_seed(0)
        base = transformers.AutoModelForCausalLM.from_pretrained(source(name))
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS[name])
        model = peft.get_peft_model(base, config)
        with Model.load(exported(name, "float32"), threads=1) as tokenizing:
            ids = torch.tensor(tokenizing.encode(training_text)[: STEPS * 2 * LENGTH])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(STEPS):
            batch = ids.reshape(STEPS, 2, LENGTH)[step]
            model(input_ids=batch, labels=batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(folder / name)
        return folder / name

    return train


@pytest.fixture(scope="module")
def merged(source: Find, trained: Find, tmp_path_factory: pytest.TempPathFactory) -> Find:
    """`merged(name)`: a float32 bundle with the adapter merged at export."""
    folder = tmp_path_factory.mktemp("merged")

    @cache
    def find(name: str) -> Path:
        adapters = (AdapterSource(trained(name)),)
        options = ExportOptions(precision="float32", adapters=adapters)
        export(source(name), folder / name, options)
        return folder / name

    return find


@pytest.fixture(scope="module")
def beside(exported: Find, trained: Find, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """`beside(name, precision)`: the bundle with the adapter as `a1`."""
    folder = tmp_path_factory.mktemp("adapters")

    def load(name: str, precision: str) -> Model:
        (folder / precision).mkdir(exist_ok=True)
        target = folder / precision / name
        if not target.exists():
            make_adapter(exported(name, precision), trained(name), target)
        file = Adapter(target, "a1")
        return Model.load(exported(name, precision), threads=1, adapters=[file])

    return load


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_in_float32_text_and_logits_are_those_of_the_merged_model(
    beside: Load, merged: Find, text: str, name: str
) -> None:
    with beside(name, "float32") as found, Model.load(merged(name), threads=1) as one:
        for start in (0, 1000, 2000):
            ids = one.encode(text[start : start + 120])
            expected = one.score(ids)
            assert np.abs(found.score(ids) - expected).max() > 0.01
            assert np.abs(found.score(ids, adapter="a1") - expected).max() < 1e-4
            answer = found.generate(ids, GREEDY, adapter="a1")
            assert answer.ids == one.generate(ids, GREEDY).ids
            assert len(answer.ids) > 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("name", NAMES)
def test_the_divergence_is_that_of_the_bundle(
    beside: Load, merged: Find, text: str, name: str, precision: str
) -> None:
    with (
        beside(name, "float32") as exact,
        Model.load(merged(name), threads=1) as one,
        beside(name, precision) as found,
    ):
        ids = one.encode(text)
        width = min(WINDOW, one.decoder.n_positions)
        windows = [ids[start : start + width] for start in range(0, 4 * width, width)]
        expected = [one.score(window) for window in windows]
        plain = [exact.score(window) for window in windows]
        base = mean(plain, [found.score(window) for window in windows])
        adapted = mean(expected, [found.score(window, adapter="a1") for window in windows])
        change = mean(expected, plain)
    print(
        f"{name} {precision}: KL {base:.6f}, with the adapter {adapted:.6f} (change {change:.3f})"
    )
    assert change > 3 * base
    assert adapted < 1.2 * base


def mean(expected: list[Logits], found: list[Logits]) -> float:
    """The mean divergence over windows of one length."""
    return float(np.mean([mean_kl(one, other) for one, other in zip(expected, found, strict=True)]))
