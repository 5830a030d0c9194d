"""Adapters trained by `issun finetune --lora`, compared live with PEFT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export import AdapterSource, ExportOptions, export
from issun.runtime import Model
from issun.runtime.errors import Notify
from issun.training.errors import RunError
from issun.training.finetune import Outcome, finetune
from issun.training.machine import find_machine
from issun.training.recipe import Lora, Recipe
from tests.cli.conftest import issun

pytestmark = pytest.mark.parity

# 13 records, 7 batches of 2, 4 steps an epoch.
FAST = Recipe(
    epochs=2,
    learning_rate=1e-2,
    batch_size=2,
    gradient_accumulation=2,
    lora=Lora(rank=4, alpha=8),
)
FAMILIES = ("gpt2", "gpt-neox", "llama", "qwen2")
TOKENIZER = {"spiece.model", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module", autouse=True)
def one_thread(ref: ModuleType) -> Iterator[None]:
    """Tiny matrices are no faster on several."""
    import torch

    for name in ("accelerate", "peft"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same arithmetic on every machine; accelerate keeps the first one of a process."""
    set_precision(monkeypatch, bf16=False)


def set_precision(monkeypatch: pytest.MonkeyPatch, *, bf16: bool) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if bf16 else "no")
    machine = replace(find_machine(), bf16=bf16)
    monkeypatch.setattr("issun.training.finetune.find_machine", lambda: machine)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    lines = [{"instruction": f"{n}の次は?", "output": f"{n + 1}です。"} for n in range(13)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`base(family)`: a tiny random checkpoint without dropout."""
    folder = tmp_path_factory.mktemp("bases")

    def make(family: str) -> Path:
        if not (folder / family).exists():
            still = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
            config = SHAPES[family]["tiny"]
            config = {**config, **still} if family == "gpt2" else config
            make_checkpoint(folder / family, config)
        return folder / family

    return make


def losses_of(run: Path) -> list[float]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "step" in entry]


def adapters_of(run: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(run.glob("epoch-*/adapter_model.safetensors"))]


@pytest.mark.sampled
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_what_was_trained_and_merges_it_alike(
    ref: ModuleType, base: Callable[[str], Path], data: Path, tmp_path: Path, family: str
) -> None:
    from peft import PeftConfig, PeftModel

    source, run = base(family), tmp_path / "run"
    outcome = finetune(source, data, run, FAST)
    losses = [entry["loss"] for entry in outcome.epochs]
    assert losses[1] < losses[0]
    adapter = run / "epoch-2"
    names = {path.name for path in adapter.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} < names
    assert names & TOKENIZER == {path.name for path in source.iterdir()} & TOKENIZER
    config = PeftConfig.from_pretrained(adapter)
    assert config.base_model_name_or_path == str(source.resolve())
    assert (config.r, config.lora_alpha, config.task_type) == (4, 8, "CAUSAL_LM")
    assert config.fan_in_fan_out is (family == "gpt2")
    model = ref.load_model(source)
    ids = list(range(7, 40))
    before = ref.logits_of(model, ids)
    adapted = PeftModel.from_pretrained(model, adapter)
    with_adapter = ref.logits_of(adapted, ids)
    assert np.abs(with_adapter - before).max() > 0.01
    adapters = (AdapterSource(adapter),)
    export(source, tmp_path / "bundle", ExportOptions(precision="float32", adapters=adapters))
    with Model.load(tmp_path / "bundle") as bundle:
        found = bundle.score(ids)
    assert np.abs(found - with_adapter).max() <= 1e-4
    merged = ref.logits_of(adapted.merge_and_unload(), ids)
    assert np.abs(found - merged).max() <= 1e-4


def test_first_step_starts_from_the_base(
    ref: ModuleType, base: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    recipe = replace(FAST, epochs=1, batch_size=13, gradient_accumulation=1)
    finetune(base("gpt2"), data, tmp_path / "lora", recipe)
    finetune(base("gpt2"), data, tmp_path / "full", replace(recipe, lora=None))
    # A new adapter changes nothing, so the first loss is that of the base.
    assert losses_of(tmp_path / "lora") == pytest.approx(losses_of(tmp_path / "full"), rel=1e-5)


@pytest.mark.slow
def test_base_in_bfloat16_learns_alike(
    base: Callable[[str], Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(base("llama"), data, tmp_path / "exact", FAST)
    set_precision(monkeypatch, bf16=True)
    finetune(base("llama"), data, tmp_path / "rounded", FAST)
    exact, rounded = losses_of(tmp_path / "exact"), losses_of(tmp_path / "rounded")
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
    weights = load_file(tmp_path / "rounded" / "epoch-2" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4])
def test_interrupted_run_ends_like_an_uninterrupted_one(
    base: Callable[[str], Path],
    data: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    stop: int,
) -> None:
    reference, run = tmp_path_factory.getbasetemp() / "whole-lora", tmp_path / "run"
    if not reference.exists():
        finetune(base("gpt2"), data, reference, FAST)

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(base("gpt2"), data, run, FAST, progress=progress)
    wider = replace(FAST, lora=Lora(rank=8))
    with pytest.raises(RunError, match=r"lora is rank 8, alpha 16, .* it was rank 4, alpha 8"):
        finetune(base("gpt2"), data, run, wider, resume=True)
    with pytest.raises(RunError, match="lora is None, it was rank 4"):
        finetune(base("gpt2"), data, run, replace(FAST, lora=None), resume=True)
    finetune(base("gpt2"), data, run, FAST, resume=True)
    assert adapters_of(run) == adapters_of(reference)
    assert losses_of(run) == losses_of(reference)
    assert not (run / "steps").exists()


class Rates:
    """An evaluation that returns given rates in order, and keeps the names that it was asked of."""

    settings: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, *rates: float) -> None:
        self.rates: Iterator[float] = iter(rates)
        self.asked: list[str] = []

    def __call__(self, model: Any, progress: Any) -> Any:
        merged = [adapter.name for adapter in model.manifest.source.adapters]
        self.asked += merged or [model.manifest.source.name]
        assert model.manifest.prompt.name == "chat_template"
        rate = next(self.rates)

        class Report:
            def to_dict(self) -> dict[str, Any]:
                return {"rate": rate}

        Report.rate = rate  # type: ignore[attr-defined]
        return Report()


@pytest.mark.slow
def test_base_and_every_epoch_are_evaluated(
    base: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    run, asked = tmp_path / "run", Rates(0.1, 0.7, 0.5)
    notices: list[str] = []
    notify: Notify = lambda template, **values: notices.append(template.format(**values))  # noqa: E731
    found: Outcome = finetune(base("qwen2"), data, run, FAST, evaluation=asked, notify=notify)
    assert asked.asked == ["qwen2", "epoch-1", "epoch-2"]
    assert (found.best, found.template) == (1, "chat_template")
    assert (run / "best").readlink() == Path("epoch-1")
    assert not list(run.glob(".aside-*"))
    assert notices[0].startswith("prompt format: chat_template (from ")


@pytest.mark.slow
def test_command_line_names_the_next_command(
    base: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    source, run = shutil.copytree(base("gpt2"), tmp_path / "ベース"), tmp_path / "run"
    done = issun(
        *("finetune", source, "--data", data, "-o", run, "--lora", "--rank", "2", "--epochs", "1"),
        *("--target-modules", "attn.c_proj,c_fc", "--no-evaluate"),
    )
    assert done.code == 0, done.err
    words = f"issun export {source} --adapter {run / 'epoch-1'} --template alpaca-japanese"
    assert f"Next: {words} -o BUNDLE" in done.err.replace("'", "")
    config = json.loads((run / "epoch-1" / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(config["target_modules"]) == {"attn.c_proj", "c_fc"}
    weights = load_file(run / "epoch-1" / "adapter_model.safetensors")
    layers = {name.split(".h.0.")[1].split(".lora_")[0] for name in weights if ".h.0." in name}
    assert layers == {"attn.c_proj", "mlp.c_fc"}
