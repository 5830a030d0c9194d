"""LoRA adapters on a torch model, trained and saved by PEFT; imports torch, so import it lazily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import set_seed

from issun.export.checkpoint import Checkpoint
from issun.training.checkpoints import ADAPTER, copy_tokenizer
from issun.training.job import Job
from issun.training.lora import changed_layers
from issun.training.recipe import Lora


def add_adapter(model: Any, job: Job, lora: Lora) -> PeftModel:
    """Freeze `model` and add a new adapter, whose random half depends on the recipe's seed.

    Where the arithmetic is bfloat16, the frozen linear layers of the blocks are stored in it too.
    Embeddings, norms and the adapter stay in float32.
    """
    layers = changed_layers(job.base, lora)
    if job.machine.bf16:
        for layer in layers:
            model.get_submodule(job.base.family.full_name(layer)).to(torch.bfloat16)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(
            lora.target_modules or dict.fromkeys(layer.rpartition(".")[2] for layer in layers)
        ),
        fan_in_fan_out=job.base.family.stored_in_out,
    )
    set_seed(job.recipe.seed)
    adapted = get_peft_model(model, config)
    config.base_model_name_or_path, config.revision = job.name, job.revision
    return adapted


def write_adapter(model: PeftModel, base: Checkpoint, folder: Path) -> None:
    """Write the adapter in PEFT's format, with the tokenizer of `base`."""
    # PEFT would look for the base model's embeddings on the hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / ADAPTER).chmod(0o644)  # it is readable by the owner only
    (folder / "README.md").unlink(missing_ok=True)  # a model card without content
    copy_tokenizer(base, folder)
