"""Runs transformers' Trainer and writes issun's checkpoints; imports torch, so import it lazily.

As in run_clm, the loss covers the whole record, prompt and answer. Unlike in run_clm, each row is
one record with masked padding, so that attention and loss never span several records.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, logging
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.trainer_callback import PrinterCallback

from issun.export.options import Progress
from issun.export.torch_model import load_torch
from issun.training.checkpoints import write_checkpoint
from issun.training.errors import TrainingError
from issun.training.job import Job
from issun.training.recipe import OPTIMIZERS
from issun.training.run import Run

# Minimum time between rolling checkpoints, as a multiple of the duration of the last save.
_SAVE_PAUSE = 3
_NO_LABEL = -100
_MEMORY_WORDS = ("out of memory", "can't allocate memory")


def train(run: Run, job: Job, finish_epoch: Callable[[int], None], progress: Progress) -> None:
    """Train to the end, starting from the run's rolling checkpoint or from the base.

    `finish_epoch` is called after each epoch, and again if the run was killed during that call.
    Raises TrainingError if the loss is not finite or memory runs out.
    """
    logging.set_verbosity_error()
    callback = _RunCallback(run, job, finish_epoch, progress)
    last = run.checkpoint()
    run.rewind_log(0 if last is None else int(last.name.rpartition("-")[2]))
    try:
        trainer = _Trainer(
            model=_load(job),
            args=_arguments(run, job),
            train_dataset=job.rows,  # type: ignore[arg-type, unused-ignore]
            data_collator=lambda rows: _collate(rows, job.base.tokenizer.tokens.pad or 0),
            compute_loss_func=callback.loss,
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.job = job
        callback.model = trainer.model
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(
            word in str(error).lower() for word in _MEMORY_WORDS
        ):
            raise
        sizes = {
            "size": job.recipe.batch_size,
            "steps": job.recipe.batch_size * job.recipe.gradient_accumulation,
        }
        if job.recipe.lora:
            raise TrainingError(
                "There is not enough memory for batches of {size} records: try --batch-size 1 "
                "--gradient-accumulation {steps}, or a smaller --max-length.",
                **sizes,
            ) from error
        raise TrainingError(
            "There is not enough memory for batches of {size} records: try --batch-size 1 "
            "--gradient-accumulation {steps}, a smaller --max-length, --optimizer adafactor, or "
            "--lora.",
            **sizes,
        ) from error


class _Trainer(Trainer):
    """Saves with `_write`, since transformers refuses to save some published configs."""

    job: Job

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        _write(self.model, self.job, folder)


class _RunCallback(TrainerCallback):
    """Logs every step, decides when to save a rolling checkpoint, and finishes epochs."""

    def __init__(
        self, run: Run, job: Job, finish_epoch: Callable[[int], None], progress: Progress
    ) -> None:
        self.run, self.job = run, job
        self.finish_epoch, self.progress = finish_epoch, progress
        self.model: Any = None
        self._losses: list[Any] = []
        self._tokens = 0
        self._started = self._saved = self._pause = 0.0

    def loss(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """The summed loss of a micro-batch, divided by the number of tokens of the whole batch."""
        loss = ForCausalLMLoss(
            outputs.logits, labels, self.job.base.network.vocab_size, num_items_in_batch
        )
        self._losses.append(loss.detach())
        self._tokens = int(num_items_in_batch)
        return loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Finish the epoch at whose end the run was killed, if so."""
        per_epoch = state.max_steps // self.job.recipe.epochs
        self.progress("train", state.global_step, state.max_steps)
        if state.global_step and state.global_step % per_epoch == 0:
            self._end_epoch(state.global_step // per_epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the step; request a rolling checkpoint if one is due or the epoch ends."""
        step, per_epoch = state.global_step, state.max_steps // self.job.recipe.epochs
        loss = math.fsum(float(part) for part in self._losses)
        self._losses.clear()
        if not math.isfinite(loss):
            raise TrainingError(
                "The loss at step {step} is {loss}: try a lower --learning-rate.",
                step=step,
                loss=loss,
            )
        self.run.log(step=step, epoch=(step - 1) // per_epoch + 1, loss=loss, tokens=self._tokens)
        self.progress("train", step, state.max_steps)
        self._started = time.perf_counter()
        due = self._started - self._saved >= self._pause
        control.should_save = due or step % per_epoch == 0

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint that the Trainer has written as complete."""
        self.run.mark_complete(self.run.steps / f"checkpoint-{state.global_step}")
        self._saved = time.perf_counter()
        self._pause = _SAVE_PAUSE * (self._saved - self._started)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write and evaluate the epoch's checkpoint."""
        self._end_epoch(state.global_step // (state.max_steps // self.job.recipe.epochs))

    def _end_epoch(self, epoch: int) -> None:
        folder = self.run.epoch_folder(epoch)
        if not folder.exists():
            with self.run.atomic_folder(folder.name) as temporary:
                _write(self.model, self.job, temporary)
        self.finish_epoch(epoch)


def _load(job: Job) -> Any:
    model = load_torch(job.base)
    model.config.use_cache = False  # incompatible with gradient checkpointing
    if job.recipe.lora is None:
        return model
    from issun.training.adapter import add_adapter  # noqa: PLC0415 - it imports peft

    return add_adapter(model, job, job.recipe.lora)


def _write(model: Any, job: Job, folder: Path) -> None:
    """Write a checkpoint, or with LoRA the adapter only."""
    if job.recipe.lora is None:
        write_checkpoint(model, job.base, folder)
        return
    from issun.training.adapter import write_adapter  # noqa: PLC0415 - it imports peft

    write_adapter(model, job.base, folder)


def _arguments(run: Run, job: Job) -> Any:
    recipe, machine = job.recipe, job.machine
    return TrainingArguments(
        output_dir=str(run.steps),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        optim=OPTIMIZERS[job.optimizer],
        bf16=machine.bf16,
        tf32=machine.tf32 or None,
        seed=recipe.seed,
        use_cpu=machine.device == "cpu",
        dataloader_pin_memory=machine.device == "cuda",
        remove_unused_columns=False,
        save_strategy="no",  # the callback requests checkpoints
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _collate(rows: list[list[int]], pad: int) -> dict[str, Any]:
    """Pad rows to the longest; padding is masked, and padding and first ids have no label."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    labels = ids.masked_fill(mask == 0, _NO_LABEL)
    labels[:, 0] = _NO_LABEL  # so that the Trainer counts predicted ids only
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
