"""Evaluates epochs: exports each checkpoint, asks the bundle questions, records loss and rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from issun.export import ExportOptions, export
from issun.export.checkpoint import Checkpoint
from issun.export.options import Progress
from issun.export.template import ALPACA
from issun.runtime import Model
from issun.runtime.errors import Notify
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
    run: Run,
    base: Checkpoint,
    evaluation: Evaluation | None,
    progress: Progress,
    notify: Notify,
) -> None:
    """Export and evaluate the base checkpoint, and record the result."""
    options = ExportOptions(tokenizer=base.tokenizer.path.parent, template=ALPACA.name)
    found = _evaluate(run, base.folder, options, evaluation, progress)
    run.record_base(found)
    if evaluation is not None:
        notify("Base: {rate:.1%} right.", rate=found["rate"])


def finish_epoch(
    run: Run, epoch: int, evaluation: Evaluation | None, progress: Progress, notify: Notify
) -> None:
    """Evaluate and record an epoch, unless it is recorded already."""
    if any(entry["epoch"] == epoch for entry in run.epochs()):
        return
    steps = [line for line in run.read_log() if "step" in line and line["epoch"] == epoch]
    tokens = sum(line["tokens"] for line in steps)
    loss = math.fsum(line["loss"] * line["tokens"] for line in steps) / tokens
    options = ExportOptions(template=ALPACA.name)  # as in the training data
    found = _evaluate(run, run.epoch_folder(epoch), options, evaluation, progress)
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
    run: Run,
    checkpoint: Path,
    options: ExportOptions,
    evaluation: Evaluation | None,
    progress: Progress,
) -> dict[str, Any]:
    """Export a checkpoint to a temporary bundle, load it, and run the evaluation, if any."""
    with run.scratch() as scratch:
        export(checkpoint, scratch / "bundle", options)
        with Model.load(scratch / "bundle", keep_packed=False) as model:
            if evaluation is None:
                return {"rate": None, "evaluation": None}
            report = evaluation(model, lambda done, total: progress("evaluate", done, total))
            return {"rate": report.rate, "evaluation": report.to_dict()}
