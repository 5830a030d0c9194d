"""A training job, as `finetune` prepares it for the trainer."""

from __future__ import annotations

from dataclasses import dataclass

from issun.export.checkpoint import Checkpoint
from issun.runtime.manifest import AnyTemplate
from issun.training.machine import Machine
from issun.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The base checkpoint, the token ids of each record, and how to train.

    `name` is the base's folder or hub id, `template` the prompt format of the records.
    """

    base: Checkpoint
    name: str
    revision: str | None
    template: AnyTemplate
    rows: list[list[int]]
    recipe: Recipe
    machine: Machine
    optimizer: str
