"""Fine-tunes a base checkpoint; each epoch gives a checkpoint that is exported and evaluated."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from issun.export import CheckpointError, MissingExtraError
from issun.export.checkpoint import Checkpoint
from issun.export.models.family import Family
from issun.export.models.gpt2 import GPT2
from issun.export.network import Network
from issun.export.options import Progress
from issun.export.source import open_source
from issun.export.target import check_space, check_target, real_target
from issun.export.template import ALPACA
from issun.runtime.errors import Notify, ParameterError
from issun.runtime.files import user_path
from issun.runtime.manifest import combined_sha256, sha256_of
from issun.training.data import read_records
from issun.training.encoding import choose_format, encode_records, open_encoder
from issun.training.epochs import Evaluation, evaluate_base, finish_epoch
from issun.training.errors import RunError
from issun.training.job import Job
from issun.training.lora import changed_layers, num_trained
from issun.training.machine import Machine, choose_optimizer, find_machine
from issun.training.recipe import Recipe
from issun.training.run import best_epoch, open_run, read_settings

_NEEDED = ("torch", "transformers", "accelerate", "peft")
_DIGITS = 16  # of a hash in the settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """The entries of `epochs.json`, the best epoch if they were evaluated, the records' format."""

    epochs: list[dict[str, Any]]
    best: int | None
    template: str


def finetune(
    base: str | Path,
    data: Path,
    target: Path,
    recipe: Recipe | None = None,
    *,
    evaluation: Evaluation | None = None,
    resume: bool = False,
    template: str | Path | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress = lambda stage, done, total: None,
    notify: Notify = lambda template, **values: None,
) -> Outcome:
    """Fine-tune the checkpoint `base` (a folder or a hub id) on `data`, in the folder `target`.

    `target` receives the checkpoints `epoch-1` ..., `epochs.json`, `log.jsonl` and the link `best`.
    With `recipe.lora` they are adapters in PEFT's format, and the base may be of any family. After
    a crash, `resume` continues after the last saved step. A step is saved unless less than three
    times the duration of the last save has passed since. The base is exported and evaluated first,
    as a baseline and to fail early. `template` is the records' prompt format as in
    ExportOptions; by default alpaca-japanese for GPT-2, and the model's own for other families.
    `tokenizer` is a folder or hub id to take the tokenizer from. Raises ParameterError,
    MissingExtraError, DataError, CheckpointError, RunError, TargetError or TrainingError.
    """
    recipe = recipe or Recipe()
    if not all(find_spec(name) for name in _NEEDED):
        raise MissingExtraError(
            "Fine-tuning needs torch, transformers, accelerate and peft: "
            '`pip install "issun[train]"`.'
        )
    target, data = real_target(target), user_path(data)
    if resume:
        read_settings(target)
    else:
        _check_new(target, user_path(base))
    located, checkpoint, _ = open_source(
        str(base),
        tokenizer=tokenizer,
        revision=revision,
        token=token,
        accept=partial(_check_family, recipe),
        notify=notify,
    )
    prompt = choose_format(checkpoint, located.name, template, notify)
    if recipe.lora:
        changed_layers(checkpoint, recipe.lora)  # raises for targets that do not exist
    limit = _limit(recipe, checkpoint)
    records = read_records(data, notify=notify)
    with open_encoder(checkpoint, prompt, data) as encode:
        rows = encode_records(records, encode, limit, recipe, path=data, notify=notify)
    machine = find_machine()
    optimizer = _optimizer(recipe, checkpoint, machine, target if resume else None, notify)
    if not resume:
        check_space(target, _disk_bytes(checkpoint, recipe))
    job = Job(
        base=checkpoint,
        name=located.name if located.revision else str(located.folder.resolve()),
        revision=located.revision,
        template=prompt,
        rows=rows,
        recipe=recipe,
        machine=machine,
        optimizer=optimizer,
    )
    settings = _settings(job, data, limit, evaluation)
    with open_run(target, settings, resume=resume) as run:
        if len(run.epochs()) < recipe.epochs:
            from issun.training.trainer import train  # noqa: PLC0415 - it imports torch

            if run.results()["base"] is None:
                evaluate_base(run, job, evaluation=evaluation, progress=progress, notify=notify)

            def finish(epoch: int) -> None:
                finish_epoch(
                    run, job, epoch, evaluation=evaluation, progress=progress, notify=notify
                )

            train(run, job, finish, progress)
        run.finish()
        entries = run.epochs()
    return Outcome(entries, best_epoch(entries), prompt.name)


def _settings(job: Job, data: Path, limit: int, evaluation: Evaluation | None) -> dict[str, Any]:
    """The settings in `run.json`, with which a run must be resumed."""
    recipe, machine = job.recipe, job.machine
    return {
        "base": _base_hash(job.base),
        "data": sha256_of(data)[:_DIGITS],
        "records": len(job.rows),
        "epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "batch_size": recipe.batch_size,
        "gradient_accumulation": recipe.gradient_accumulation,
        "max_length": limit,
        "truncate": recipe.truncate,
        "optimizer": job.optimizer,
        "seed": recipe.seed,
        "device": f"{machine.device} x {machine.devices}",
        "precision": machine.precision,
        **_further_settings(job),
        **({"evaluation": None} if evaluation is None else evaluation.settings),
    }


def _further_settings(job: Job) -> dict[str, Any]:
    """Settings that differ from the published recipe; earlier versions did not have them."""
    settings: dict[str, Any] = {}
    if job.template != ALPACA:
        digest = hashlib.sha256(msgspec.json.encode(job.template)).hexdigest()[:_DIGITS]
        settings["template"] = f"{job.template.name} {digest}"
    if lora := job.recipe.lora:
        targets = " ".join(lora.target_modules) or "all"
        settings["lora"] = f"rank {lora.rank}, alpha {lora.alpha}, target_modules {targets}"
    return settings


def _check_new(target: Path, base: Path) -> None:
    if target.exists():
        raise RunError(
            "{target} exists: choose another folder, or resume the run in it with --resume.",
            target=target,
        )
    check_target(target, base, force=False)


def _check_family(recipe: Recipe, family: Family, network: Network) -> None:
    if family is not GPT2 and recipe.lora is None:
        raise CheckpointError(
            "Fine-tuning without --lora supports gpt2 only, and the model is {family}.",
            family=network.family,
        )


def _limit(recipe: Recipe, checkpoint: Checkpoint) -> int:
    context = checkpoint.network.n_positions
    if recipe.max_length is not None and recipe.max_length > context:
        raise ParameterError(
            "max_length is {value:,}, it must be at most the model's context of {context:,}.",
            value=recipe.max_length,
            context=context,
        )
    return recipe.max_length or context


def _optimizer(
    recipe: Recipe, checkpoint: Checkpoint, machine: Machine, resumed: Path | None, notify: Notify
) -> str:
    """The optimizer; a resumed run keeps the one chosen at its start."""
    name = recipe.optimizer
    if recipe.lora and name == "auto":  # its state is as small as the adapter
        return "adamw"
    if resumed is not None and name == "auto":
        name = str(read_settings(resumed).get("optimizer"))
        notify = lambda template, **values: None  # noqa: E731 - there is no choice to report
    return choose_optimizer(name, _parameters(checkpoint), machine, notify)


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(
        math.prod(shape) for shape in (tensor.shape for tensor in checkpoint.stored.values())
    )


def _disk_bytes(checkpoint: Checkpoint, recipe: Recipe) -> int:
    """One checkpoint per epoch, two rolling checkpoints with Adam's state, and a bundle.

    With LoRA, the checkpoints are adapters.
    """
    trained, evaluated = _parameters(checkpoint), 2 * _parameters(checkpoint)
    if recipe.lora:
        trained = num_trained(checkpoint, recipe.lora)
    return trained * (4 * recipe.epochs + 2 * 12) + evaluated


def _base_hash(checkpoint: Checkpoint) -> str:
    files = [*checkpoint.files, checkpoint.folder / "config.json"]
    return combined_sha256({path.name: sha256_of(path) for path in files})[:_DIGITS]
