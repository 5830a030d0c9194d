"""Fine-tuning with torch: losses, and killed runs that end like uninterrupted ones."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from issun.export import CheckpointError, export
from issun.runtime import Model, SamplingParams
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.training.data import read_records
from issun.training.errors import RunError, TrainingError
from issun.training.finetune import Outcome, finetune
from issun.training.machine import find_machine
from issun.training.recipe import Recipe
from issun.training.records import SPECIAL_TOKENS
from tests.cli.conftest import environment
from tests.special_ids import assign_special_ids

pytestmark = pytest.mark.parity

# 13 records, 7 batches of 2, 4 steps an epoch: the last batch and the last step are short.
FAST = Recipe(epochs=3, learning_rate=1e-3, batch_size=2, gradient_accumulation=2)
STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def torch_is_there(ref: ModuleType) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    lines = [
        {"instruction": f"{n}の次は?", "output": f"{n + 1}です。" * (n % 4 + 1)} for n in range(13)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("head-20-width-100")


@dataclass
class Scripted:
    """An evaluation that returns given rates in order, first that of the base."""

    rates: Iterator[float]
    asked: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"table": "scripted"}

    def __call__(self, model: Model, progress: Callable[[int, int], None]) -> Rate:
        self.asked.append(model.manifest.source.name)
        progress(1, 1)
        return Rate(next(self.rates))


@dataclass
class Rate:
    rate: float

    def to_dict(self) -> dict[str, Any]:
        return {"rate": self.rate}


def interrupt_at(step: int) -> Callable[[str, int, int], None]:
    """A progress callback that interrupts the run after `step` steps."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == step:
            raise KeyboardInterrupt

    return progress


def weights_of(run: Path) -> list[bytes]:
    files = sorted(run.glob("epoch-*/model.safetensors"))
    assert [file.parent.name for file in files] == ["epoch-1", "epoch-2", "epoch-3"]
    return [file.read_bytes() for file in files]


def command(base: Path, data: Path, target: Path, *more: str) -> list[str | Path]:
    return [
        *(sys.executable, "-m", "issun.cli.main", "finetune", base, "--data", data),
        *("-o", target, "--no-evaluate", "--epochs", "3", "--learning-rate", "1e-3"),
        *("--batch-size", "2", "--gradient-accumulation", "2", *more),
    ]


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the command line, on one thread."""
    target = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(
        command(base, data, target),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(OMP_NUM_THREADS="1"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "epoch    loss   right"
    assert len(done.stdout.splitlines()) == 4
    *notices, last = done.stderr.splitlines()
    assert notices[0].startswith("Optimizer: adamw, since")
    titles = [line.partition(":")[0] for line in notices[1:]]
    # Each half minute has a line of progress as well.
    epochs = [title for title in titles if title != "training"]
    assert epochs == ["Epoch 1", "Epoch 2", "Epoch 3"]
    assert last.startswith(f"{target}: loss ")
    return target


def test_run_writes_all_files(whole: Path, base: Path) -> None:
    names = {path.name for path in whole.iterdir()} - {".lock"}
    assert names == {"run.json", "log.jsonl", "epochs.json", "epoch-1", "epoch-2", "epoch-3"}
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    steps = [line for line in log if "step" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in steps] == [1] * 4 + [2] * 4 + [3] * 4
    results = json.loads((whole / "epochs.json").read_text())
    assert results["best"] is None
    losses = [entry["loss"] for entry in results["epochs"]]
    assert losses[2] < 0.9 * losses[0]
    mine = [line for line in steps if line["epoch"] == 1]
    tokens = sum(line["tokens"] for line in mine)
    mean = sum(line["loss"] * line["tokens"] for line in mine) / tokens
    assert losses[0] == pytest.approx(mean)
    files = {path.name for path in (whole / "epoch-1").iterdir()}
    assert files == {path.name for path in base.iterdir()}


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.0005)


def is_saving(run: Path, since: int) -> bool:
    """True while a rolling checkpoint after step `since` is being written."""
    folders = list((run / "steps").glob("checkpoint-*")) if (run / "steps").exists() else []
    return any(
        int(folder.name.partition("-")[2]) > since and not (folder / "complete").exists()
        for folder in folders
    )


@pytest.mark.slow
def test_killed_run_resumes_with_the_same_result(
    base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def logged() -> int:
        log = run / "log.jsonl"
        return log.read_text().count('"step"') if log.exists() else 0

    # While a later checkpoint is being written, and then with Ctrl-C.
    moments: list[tuple[Callable[[], bool], int]] = [
        (lambda: is_saving(run, since=2), signal.SIGKILL),
        (lambda: logged() >= 9, signal.SIGINT),
    ]
    reached = []
    for happened, sign in moments:
        resume = ["--resume"] if run.exists() else []
        process = subprocess.Popen(
            command(base, data, run, *resume),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(OMP_NUM_THREADS="1"),
        )
        wait_for(process, happened)
        process.send_signal(sign)
        _, err = process.communicate(timeout=300)
        reached.append(logged())
        if sign == signal.SIGINT:
            assert process.returncode == 130
            assert "Traceback" not in err
            last = err.splitlines()[-1]
            assert last.startswith("Stopped. Resume with: issun finetune ")
            assert last.endswith(" --resume")
        else:
            assert process.returncode == -sign
    assert 3 <= reached[0] <= reached[1] <= STEPS
    finetune(base, data, run, FAST, resume=True)
    assert weights_of(run) == weights_of(whole)
    for name in ("log.jsonl", "epochs.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


# In the middle of an epoch, at its end, and at the end of the run.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "stop"), [("adamw", 4), ("adamw", 6), ("adamw", 12), ("adafactor", 6)]
)
def test_interruption_at_any_step(
    base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str, stop: int
) -> None:
    recipe = replace(FAST, optimizer=optimizer)
    reference = tmp_path_factory.getbasetemp() / f"whole-{optimizer}"
    if not reference.exists():
        finetune(base, data, reference, recipe)
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        finetune(base, data, run, recipe, progress=interrupt_at(stop))
    finetune(base, data, run, recipe, resume=True)
    assert weights_of(run) == weights_of(reference)


@pytest.mark.slow
def test_each_epoch_is_evaluated_and_the_best_is_linked(
    base: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def rates() -> Iterator[float]:
        yield from (0.1, 0.5)
        raise KeyboardInterrupt

    first = Scripted(rates())
    with pytest.raises(KeyboardInterrupt):
        finetune(base, data, run, FAST, evaluation=first)
    assert first.asked == [base.name, "epoch-1", "epoch-2"]
    second = Scripted(iter((0.75, 0.5)))
    outcome = finetune(base, data, run, FAST, evaluation=second, resume=True)
    assert second.asked == ["epoch-2", "epoch-3"]
    assert (outcome.best, [entry["rate"] for entry in outcome.epochs]) == (2, [0.5, 0.75, 0.5])
    results = json.loads((run / "epochs.json").read_text())
    assert results["base"] == {"rate": 0.1, "evaluation": {"rate": 0.1}}
    assert (run / "best").readlink() == Path("epoch-2")
    assert not list(run.glob(".aside-*"))
    assert finetune(base, data, run, FAST, evaluation=Scripted(iter(())), resume=True) == outcome
    export(run / "best", tmp_path / "bundle")
    with Model.load(tmp_path / "bundle") as model:
        assert model.generate(model.prompt("3の次は?"), SamplingParams(max_new_tokens=5)).ids


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 5e-3)])
def test_loss_equals_that_of_transformers(
    *,
    ref: ModuleType,
    base: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bf16: bool,
    tolerance: float,
) -> None:
    import torch
    from accelerate.state import AcceleratorState

    # Test both precisions on any machine; accelerate keeps the first one of a process.
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if bf16 else "no")
    machine = replace(find_machine(), bf16=bf16)
    monkeypatch.setattr("issun.training.finetune.find_machine", lambda: machine)
    source = tmp_path / "base"
    shutil.copytree(base, source)
    config = json.loads((source / "config.json").read_text())
    still = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    (source / "config.json").write_text(json.dumps(config | still))
    # Gradient accumulation does not change the step.
    losses = []
    for size in (13, 4):
        recipe = Recipe(epochs=1, batch_size=size, gradient_accumulation=-(-13 // size))
        finetune(source, data, tmp_path / f"run-{size}", recipe)
        line = (tmp_path / f"run-{size}" / "log.jsonl").read_text().splitlines()[0]
        losses.append(json.loads(line))
    spiece = source / "spiece.model"
    tokenizer = SentencePieceTokenizer(spiece, assign_special_ids(spiece, SPECIAL_TOKENS))
    model, total, count = ref.load_model(source), 0.0, 0
    for record in read_records(data):
        ids = torch.tensor([tokenizer.encode(record.text, special=True)])
        with torch.no_grad():
            mean = model(input_ids=ids, labels=ids).loss
        total, count = total + float(mean) * (ids.shape[1] - 1), count + ids.shape[1] - 1
    for found in losses:
        assert found["tokens"] == count
        assert found["loss"] == pytest.approx(total / count, rel=tolerance)


def _conversations(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": i}, {"role": "assistant", "content": o}]}
        for i, o in (row.values() for row in rows)
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        pyarrow.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps({"data": rows}, indent=1), encoding="utf-8")
    return path


@pytest.mark.sampled
@pytest.mark.parametrize("kinds", [("a.csv", "b.json"), ("chat.parquet", "chat.json")])
def test_every_format_gives_the_same_training(
    base: Path, tmp_path: Path, kinds: tuple[str, str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": f"{n}の次は?</s>", "output": f"[SEP]{n + 1}です。"} for n in range(5)
    ]
    logs = []
    for name in kinds:
        path = _write(tmp_path / name, _conversations(rows) if "chat" in name else rows)
        finetune(base, path, tmp_path / f"{name}-run", Recipe(epochs=1, batch_size=5))
        logs.append((tmp_path / f"{name}-run" / "log.jsonl").read_text().splitlines()[0])
    first, second = (json.loads(line) for line in logs)
    assert first["tokens"] == second["tokens"] > 5 * 40
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)


def test_loss_that_is_not_finite_is_an_error(base: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = tmp_path / "base"
    shutil.copytree(base, source)
    weights = load_file(source / "model.safetensors")
    for name, array in weights.items():
        if "ln_" in name and name.endswith("weight"):
            weights[name] = array * 1e38
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="The loss at step 1 is nan"):
        finetune(source, data, tmp_path / "run", FAST)
    assert not (tmp_path / "run").exists()


def test_base_that_cannot_be_exported_fails_before_training(
    base: Path, data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "base"
    shutil.copytree(base, source)
    (source / "generation_config.json").write_text('{"temperature": -1}')
    with pytest.raises(CheckpointError, match="generation_config"):
        finetune(source, data, tmp_path / "run", FAST, progress=interrupt_at(0))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_separate_tokenizer_and_wrapped_names_give_the_same_run(
    base: Path, data: Path, tmp_path: Path, whole: Path
) -> None:
    source, tokenizer = tmp_path / "base", tmp_path / "tokenizer"
    shutil.copytree(base, source)
    tokenizer.mkdir()
    for name in ("spiece.model", "tokenizer_config.json"):
        (source / name).rename(tokenizer / name)
    weights = load_file(source / "model.safetensors")
    wrapped = {f"_orig_mod.{name}": array for name, array in weights.items()}
    save_file(wrapped | {"v_head.bias": np.ones(1, np.float32)}, source / "model.safetensors")
    notices: list[str] = []
    finetune(
        source,
        data,
        tmp_path / "run",
        FAST,
        tokenizer=tokenizer,
        notify=lambda template, **values: notices.append(template.format(**values)),
    )
    assert [text for text in notices if "ignored v_head.bias" in text]
    assert weights_of(tmp_path / "run") == weights_of(whole)
    epoch = tmp_path / "run" / "epoch-1"
    assert {"spiece.model", "tokenizer_config.json"} <= {path.name for path in epoch.iterdir()}
    assert export(epoch, tmp_path / "bundle").tokens.sep == 5


def test_adapter_is_refused_as_base(base: Path, data: Path, tmp_path: Path) -> None:
    source = shutil.copytree(base, tmp_path / "base")
    (source / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "someone/base"}', encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match="contains an adapter for someone/base"):
        finetune(source, data, tmp_path / "run", FAST)
    assert not (tmp_path / "run").exists()


def test_run_with_other_settings_is_not_resumed(
    base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def resumed(data: Path = data, **changes: Any) -> Outcome:
        return finetune(base, data, run, replace(FAST, **changes), resume=True)

    other = tmp_path / "other.jsonl"
    other.write_bytes(data.read_bytes() + b"\n")
    with pytest.raises(RunError, match=r"learning_rate is 1e-07, it was 0\.001"):
        resumed(learning_rate=1e-7)
    with pytest.raises(RunError, match=r"other settings: data is .*, it was"):
        resumed(other)
    with pytest.raises(RunError, match="optimizer is adafactor, it was adamw"):
        resumed(optimizer="adafactor")
    assert len(resumed().epochs) == 3
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_published_config_that_transformers_refuses_to_save(
    base: Path, data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "base"
    shutil.copytree(base, source)
    (source / "generation_config.json").write_text('{"temperature": 0.7, "top_k": 40}')
    recipe = Recipe(epochs=1, batch_size=13)
    finetune(source, data, tmp_path / "run", recipe)
    kept = tmp_path / "run" / "epoch-1"
    assert (kept / "generation_config.json").read_bytes() == (
        source / "generation_config.json"
    ).read_bytes()
    before = json.loads((source / "config.json").read_text())
    assert json.loads((kept / "config.json").read_text()) == before | {"torch_dtype": "float32"}
    assert os.access(kept / "model.safetensors", os.R_OK)
