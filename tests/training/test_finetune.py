"""Parts of fine-tuning that do not need torch: recipe, folder, optimizer, and errors."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.cli.finetune import Accuracy, _export_command, _named, _resuming_command
from issun.cli.main import make_app
from issun.export import export
from issun.runtime import Model
from issun.runtime.errors import IssunError, ParameterError
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.training.data import Record
from issun.training.encoding import encode_records
from issun.training.errors import DataError, RunError, TrainingError
from issun.training.machine import Machine, choose_optimizer
from issun.training.recipe import Recipe
from issun.training.records import SPECIAL_TOKENS, instruction_record
from issun.training.run import Run, best_epoch, is_run, open_run, read_settings
from tests.cli.conftest import Result, issun
from tests.needs import links
from tests.scripted import write_scripted
from tests.special_ids import assign_special_ids

SETTINGS = {"base": "12ab", "learning_rate": 1e-4, "max_length": None}


def entry(epoch: int, rate: float | None, loss: float) -> dict[str, Any]:
    return {"epoch": epoch, "rate": rate, "loss": loss}


def test_defaults_equal_those_of_the_published_model() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.learning_rate, recipe.batch_size) == (4, 1e-7, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"gradient_accumulation": -1},
        {"max_length": 1},
        {"seed": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": 2.0},
        {"learning_rate": "2e-4"},
        {"epochs": 1.5},
        {"batch_size": "8"},
        {"optimizer": "sgd"},
    ],
)
def test_invalid_recipe(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"{next(iter(wrong))} is"):
        Recipe(**wrong)


CPU = Machine(
    device="cpu", devices=1, bf16=False, tf32=False, free_bytes=16_000, bitsandbytes=False
)
GPU = Machine(device="cuda", devices=1, bf16=True, tf32=True, free_bytes=16_000, bitsandbytes=True)


@pytest.mark.parametrize(
    ("machine", "asked", "parameters", "chosen", "reason"),
    [
        (CPU, "auto", 1000, "adamw", "needs 0.0 GB of memory"),
        (CPU, "auto", 1001, "adafactor", "since adamw needs"),
        (GPU, "auto", 10**9, "adamw_bnb_8bit", "since a GPU and bitsandbytes are available"),
        (CPU, "adamw", 10**9, "adamw", "as requested"),
        (CPU, "adafactor", 1, "adafactor", "as requested"),
        (GPU, "adamw_bnb_8bit", 1, "adamw_bnb_8bit", "as requested"),
    ],
)
def test_optimizer_and_its_reason(
    machine: Machine, asked: str, parameters: int, chosen: str, reason: str
) -> None:
    told: list[str] = []
    found = choose_optimizer(asked, parameters, machine, lambda t, **v: told.append(t.format(**v)))
    assert found == chosen
    assert len(told) == 1
    assert reason in told[0]
    assert told[0].startswith(f"Optimizer: {chosen}, ")


def test_8_bit_optimizer_needs_a_gpu() -> None:
    with pytest.raises(TrainingError, match="needs an NVIDIA GPU and bitsandbytes"):
        choose_optimizer("adamw_bnb_8bit", 1, CPU, lambda t, **v: None)


def test_long_records_are_refused_or_truncated(spiece: Path) -> None:
    tokenizer = SentencePieceTokenizer(spiece, assign_special_ids(spiece, SPECIAL_TOKENS))
    records = [Record(n, instruction_record("a", None, "b" * n)) for n in (1, 50, 51, 90)]
    ids = [tokenizer.encode(record.text, special=True) for record in records]
    told: list[str] = []

    def encode(limit: int, **options: Any) -> list[list[int]]:
        return encode_records(
            records,
            lambda record: record.encode(tokenizer),
            limit,
            Recipe(**options),
            path=Path("x"),
            notify=lambda template, **values: told.append(template.format(**values)),
        )

    assert encode(len(ids[-1])) == ids
    with pytest.raises(DataError, match=r"3 of 4 records have more than .* \(lines 50-51, 90\)"):
        encode(len(ids[0]))
    assert told == []
    assert encode(len(ids[0]), truncate=True) == [row[: len(ids[0])] for row in ids]
    assert told == [f"3 of 4 records are truncated to {len(ids[0])} tokens."]


def test_best_epoch_has_the_best_rate_and_then_the_lowest_loss() -> None:
    assert best_epoch([]) is None
    assert best_epoch([entry(1, None, 1.0)]) is None
    assert best_epoch([entry(1, 0.5, 3.0), entry(2, 0.7, 2.0), entry(3, 0.6, 1.0)]) == 2
    assert best_epoch([entry(1, 0.7, 3.0), entry(2, 0.7, 2.0), entry(3, 0.7, 2.5)]) == 2


@links
def test_epochs_are_recorded_and_the_best_is_linked(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with open_run(target, SETTINGS, resume=False) as run:
        for recorded in (entry(1, 0.5, 3.0), entry(2, 0.7, 2.0), entry(3, 0.6, 1.0)):
            with run.atomic_folder(f"epoch-{recorded['epoch']}") as folder:
                (folder / "model").write_text("weights")
            run.record_epoch(recorded)
    found = json.loads((target / "epochs.json").read_text(encoding="utf-8"))
    assert (found["best"], found["best_linked"]) == (2, True)
    assert [recorded["epoch"] for recorded in found["epochs"]] == [1, 2, 3]
    assert (target / "best").is_symlink()
    assert (target / "best").readlink() == Path("epoch-2")
    assert (target / "best" / "model").read_text() == "weights"


def test_without_symbolic_links_the_best_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with open_run(tmp_path / "run", SETTINGS, resume=False) as run:
        run.record_epoch(entry(1, 0.5, 3.0))
    found = json.loads((tmp_path / "run" / "epochs.json").read_text(encoding="utf-8"))
    assert (found["best"], found["best_linked"]) == (1, False)


def write_step(run: Run, step: int) -> Path:
    folder = run.steps / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(str(step))
    run.log(step=step, epoch=1, loss=1.0, tokens=10)
    return folder


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with open_run(target, SETTINGS, resume=False) as run:
        assert run.checkpoint() is None
        for step in (1, 9, 10):
            run.mark_complete(write_step(run, step))
            assert [path.name for path in run.steps.iterdir()] == [f"checkpoint-{step}"]
        write_step(run, 11)
        (target / ".aside-12345678").mkdir()
    with open_run(target, SETTINGS, resume=True) as run:
        last = run.checkpoint()
        assert last is not None
        assert last.name == "checkpoint-10"
        assert [path.name for path in run.steps.iterdir()] == ["checkpoint-10"]
        assert not (target / ".aside-12345678").exists()
        run.rewind_log(10)
        assert [line["step"] for line in run.read_log()] == [1, 9, 10]


def test_rewind_removes_incomplete_lines_and_unrecorded_epochs(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", SETTINGS, resume=False) as run:
        for step in (1, 2, 3):
            write_step(run, step)
        run.log(epoch=1, loss=1.0, rate=None)
        run.log(epoch=2, loss=1.0, rate=None)
        run.record_epoch(entry(1, None, 1.0))
        with (run.folder / "log.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        run.rewind_log(2)
        assert [(line.get("step"), line["epoch"]) for line in run.read_log()] == [
            (1, 1),
            (2, 1),
            (None, 1),
        ]


def test_run_that_fails_before_its_first_checkpoint_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(TrainingError), open_run(target, SETTINGS, resume=False):
        assert is_run(target)
        raise TrainingError("no")
    assert not target.exists()
    with pytest.raises(TrainingError), open_run(target, SETTINGS, resume=False) as run:
        run.mark_complete(write_step(run, 1))
        raise TrainingError("no")
    assert is_run(target)
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "b", SETTINGS, resume=False):
        raise KeyboardInterrupt
    assert is_run(tmp_path / "b")


def test_runs_that_cannot_be_resumed(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(RunError, match="contains no fine-tuning run"):
        read_settings(target)
    with open_run(target, SETTINGS, resume=False):
        pass
    assert read_settings(target) == SETTINGS
    other = {**SETTINGS, "learning_rate": 1e-5, "base": "34cd"}
    with (
        pytest.raises(RunError) as caught,
        open_run(target, other, resume=True),
    ):
        pass
    assert "base is 34cd, it was 12ab; learning_rate is 1e-05, it was 0.0001" in str(caught.value)
    with (
        FileLock(target / ".lock"),
        pytest.raises(RunError, match="Another process"),
        open_run(target, SETTINGS, resume=True),
    ):
        pass
    for text in ("{", '{"format": 2, "issun": "9", "settings": {}}'):
        (target / "run.json").write_text(text)
        with pytest.raises(RunError, match="cannot be read"):
            read_settings(target)


def refused(result: Result, *words: str) -> None:
    assert result.code == 2, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err, (word, result.err)


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`refusal(base, *arguments)`: why the command line refuses, as if torch were installed."""
    monkeypatch.setattr("issun.training.finetune.find_spec", lambda name: True)

    def run(base: Path, *arguments: str | Path) -> str:
        words = ["finetune", base, *arguments, "--no-evaluate"]
        with pytest.raises(IssunError) as caught:
            make_app()([str(word) for word in words], standalone_mode=False)
        return str(caught.value)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
    return path


def test_command_line_errors_before_any_work(
    tmp_path: Path, checkpoint: Callable[[str], Path], data: Path, refusal: Callable[..., str]
) -> None:
    base, target = checkpoint("head-8"), tmp_path / "run"
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"output": "a"}\n')
    (tmp_path / "empty.jsonl").touch()
    no_sep = tmp_path / "no-sep"
    shutil.copytree(base, no_sep)
    (no_sep / "tokenizer_config.json").write_text("{}")
    make_checkpoint(tmp_path / "llama", SHAPES["llama"]["tiny"])

    def refused_for(words: str, base: Path = base, data: Path = data, *more: str) -> None:
        assert words in refusal(base, "--data", data, "-o", target, *more)

    refused_for("line 2: `instruction` is missing", base, tmp_path / "bad.jsonl")
    refused_for("empty.jsonl is empty", base, tmp_path / "empty.jsonl")
    refused_for("cannot be read: No such file", base, tmp_path / "none.jsonl")
    refused_for("There is no folder", tmp_path / "nowhere")
    refused_for("the tokenizer has no [SEP]", no_sep)
    refused_for("epochs is 0", base, data, "--epochs", "0")
    refused_for("supports gpt2 only, and the model is llama", tmp_path / "llama")
    refused_for("at most the model's context of 192", base, data, "--max-length", "193")
    refused_for("optimizer is 'sgd'", base, data, "--optimizer", "sgd")
    refused_for("contains no fine-tuning run", base, data, "--resume")
    refused_for("There is no template alpaca", base, data, "--template", "alpaca")
    assert not target.exists()
    target.mkdir()
    refused_for("exists: choose another folder, or resume the run in it with --resume")
    refused_for("contains no fine-tuning run", base, data, "--resume")
    assert "overlaps the checkpoint" in refusal(base, "--data", data, "-o", base / "run")


def test_options_of_an_adapter_are_checked(
    tmp_path: Path, checkpoint: Callable[[str], Path], data: Path, refusal: Callable[..., str]
) -> None:
    base = checkpoint("head-8")

    def refused_for(*more: str) -> str:
        return refusal(base, "--data", data, "-o", tmp_path / "run", *more)

    assert refused_for("--rank", "8") == "Only --lora uses --rank."
    assert refused_for("--alpha", "8") == "Only --lora uses --alpha."
    assert refused_for("--target-modules", "c_fc") == "Only --lora uses --target-modules."
    assert "rank is 0" in refused_for("--lora", "--rank", "0")
    assert "alpha is 0" in refused_for("--lora", "--alpha", "0")
    message = "target_modules is 'q_proj', it must be one of c_attn, c_proj, c_fc."
    assert refused_for("--lora", "--target-modules", "c_fc,q_proj") == message
    assert "target_modules is ('',)" in refused_for("--lora", "--target-modules", "")
    assert "rank is 1000, it must be a whole number from 1 to" in refused_for(
        "--lora", "--rank", "1000"
    )
    assert not (tmp_path / "run").exists()


def test_missing_extra_is_reported_in_one_line(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    # None in sys.modules hides a package, whether it is installed or not.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'transformers'):\n    sys.modules[name] = None\n"
    )
    result = issun(
        *("finetune", checkpoint("head-8"), "--data", tmp_path / "a", "-o", tmp_path / "run"),
        PYTHONPATH=str(tmp_path),
    )
    refused(result, 'pip install "issun[train]"')


def test_evaluation_settings_are_table_and_samples(tmp_path: Path, spiece: Path) -> None:
    write_scripted(tmp_path / "checkpoint", spiece, "富士山です。")
    export(tmp_path / "checkpoint", tmp_path / "bundle")
    tables = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for path, right in zip(tables, ("富士山", "琵琶湖"), strict=True):
        path.write_text(f'[[questions]]\nquestion = "山は?"\nright = "{right}"\n', encoding="utf-8")
    known = [Accuracy(tables[0], 2), Accuracy(tables[1], 2), Accuracy(tables[0], 3)]
    assert len({str(accuracy.settings) for accuracy in known}) == 3
    assert Accuracy(tables[0], 2).settings == known[0].settings
    told: list[tuple[int, int]] = []
    with Model.load(tmp_path / "bundle") as model:
        report = known[0](model, lambda done, total: told.append((done, total)))
        assert report.rate == 1
        assert known[1](model, lambda done, total: None).rate == 0
    assert told[-1][0] == told[-1][1] > 0
    json.dumps(report.to_dict())
    with pytest.raises(ParameterError, match="samples is 0"):
        Accuracy(None, 0)


def test_command_to_resume_does_not_show_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["issun", "finetune", "a b", "--token", "hf_x", "--resume", "--token=hf_y", "-o", "d"]
    monkeypatch.setattr("sys.argv", given)
    assert _resuming_command() == "issun finetune 'a b' -o d --resume"


def test_next_command_has_the_options_that_have_a_value() -> None:
    options = {
        "--adapter": "実行/epoch-1",
        "--template": _named("chat_template"),
        "--revision": None,
    }
    command = _export_command("some base", options)
    assert command == "issun export 'some base' --adapter '実行/epoch-1' -o BUNDLE"
    command = _export_command("base", {"--template": _named("alpaca-japanese")})
    assert command == "issun export base --template alpaca-japanese -o BUNDLE"
