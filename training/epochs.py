"""Evaluates epochs: exports each checkpoint, asks the bundle questions, records loss and rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from issun.export import AdapterSource, ExportOptions, export
from issun.export.options import Progress
from issun.runtime import Model
from issun.runtime.errors import Notify
from issun.training.checkpoints import is_adapter
from issun.training.job import Job
from issun.training.run import Run


class Report(Protocol):
    """The result of an evaluation; `rate` is the share of right answers."""

    @property
    def rate(self) -> float: ...  # noqa: D102
    def to_dict(self) -> dict[str, Any]: ...  # noqa: D102


class Evaluation(Protocol):
    """Evaluates an exported epoch; a run can be resumed only with the same `settings`."""

    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102
    def __call__(self, model: Model, progress: Callable[[int, int], None]) -> Report: ...  # noqa: D102


def evaluate_base(
    run: Run, job: Job, *, evaluation: Evaluation | None, progress: Progress, notify: Notify
) -> None:
    """Export and evaluate the base checkpoint, and record the result."""
    found = _evaluate(run, job, job.base.folder, evaluation, progress)
    run.record_base(found)
    if evaluation is not None:
        notify("Base: {rate:.1%} right.", rate=found["rate"])


def finish_epoch(
    run: Run,
    job: Job,
    epoch: int,
    *,
    evaluation: Evaluation | None,
    progress: Progress,
    notify: Notify,
) -> None:
    """Evaluate and record an epoch, unless it is recorded already."""
    if any(entry["epoch"] == epoch for entry in run.epochs()):
        return
    steps = [line for line in run.read_log() if "step" in line and line["epoch"] == epoch]
    tokens = sum(line["tokens"] for line in steps)
    loss = math.fsum(line["loss"] * line["tokens"] for line in steps) / tokens
    found = _evaluate(run, job, run.epoch_folder(epoch), evaluation, progress)
    run.log(epoch=epoch, loss=loss, rate=found["rate"])
    described = {"epoch": epoch, "steps": len(steps), "tokens": tokens, "loss": loss}
    run.record_epoch(described | found)
    if evaluation is None:
        notify("Epoch {epoch}: loss {loss:.4f}.", epoch=epoch, loss=loss)
    else:
        notify(
            "Epoch {epoch}: loss {loss:.4f}, {rate:.1%} right.",
            epoch=epoch,
            loss=loss,
            rate=found["rate"],
        )


def _evaluate(
    run: Run, job: Job, trained: Path, evaluation: Evaluation | None, progress: Progress
) -> dict[str, Any]:
    """Export a checkpoint to a temporary bundle, load it, and run the evaluation, if any.

    `trained` is the folder of a checkpoint, or of an adapter, which is merged into the base.
    """
    with run.scratch() as scratch:
        template = scratch / "prompt.json"
        template.write_bytes(msgspec.json.encode(job.template))
        adapted = is_adapter(trained)
        options = ExportOptions(
            tokenizer=job.base.tokenizer.path.parent,
            template=template,
            adapters=(AdapterSource(trained),) if adapted else (),
        )
        export(job.base.folder if adapted else trained, scratch / "bundle", options)
        with Model.load(scratch / "bundle", keep_packed=False) as model:
            if evaluation is None:
                return {"rate": None, "evaluation": None}
            report = evaluation(model, lambda done, total: progress("evaluate", done, total))
            return {"rate": report.rate, "evaluation": report.to_dict()}
