"""A training job, as `finetune` prepares it for the trainer."""

from __future__ import annotations

from dataclasses import dataclass

from issun.export.checkpoint import Checkpoint
from issun.training.machine import Machine
from issun.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The base checkpoint, the token ids of each record, and how to train."""

    base: Checkpoint
    rows: list[list[int]]
    recipe: Recipe
    machine: Machine
    optimizer: str
