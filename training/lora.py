"""The linear layers that an adapter changes, by their names in the checkpoint; without torch."""

from __future__ import annotations

from collections.abc import Iterator

from issun.export.canonical import LINEARS
from issun.export.checkpoint import Checkpoint
from issun.runtime.errors import ParameterError
from issun.training.recipe import Lora


def changed_layers(checkpoint: Checkpoint, lora: Lora) -> list[str]:
    """Names of the linear layers that `lora` changes, without the prefix of the base model.

    Raises ParameterError for a target that is no linear layer of a block, and for a rank above the
    model's width.
    """
    layers = list(_linear_layers(checkpoint))
    known = dict.fromkeys(layer.rpartition(".")[2] for layer in layers)
    for target in lora.target_modules:
        if not any(_matches(layer, target) for layer in layers):
            raise ParameterError(
                "{name} is {value!r}, it must be one of {known}.",
                name="target_modules",
                value=target,
                known=", ".join(known),
            )
    if lora.rank > checkpoint.network.n_embd:
        raise ParameterError(
            "{name} is {value!r}, it must be a whole number {bounds}.",
            name="rank",
            value=lora.rank,
            bounds=f"from 1 to {checkpoint.network.n_embd}",
        )
    targets = lora.target_modules or tuple(known)
    return [layer for layer in layers if any(_matches(layer, target) for target in targets)]


def num_trained(checkpoint: Checkpoint, lora: Lora) -> int:
    """The number of values in the adapter."""
    shapes = (
        checkpoint.stored[f"{layer}.weight"].shape for layer in changed_layers(checkpoint, lora)
    )
    return sum(lora.rank * sum(shape) for shape in shapes)


def _linear_layers(checkpoint: Checkpoint) -> Iterator[str]:
    family = checkpoint.family
    for number in range(checkpoint.network.n_layer):
        for part in LINEARS:
            names = family.block.get(part, ())
            for name in (names,) if isinstance(names, str) else names:
                yield family.layer.format(number) + name


def _matches(layer: str, target: str) -> bool:
    """True if PEFT takes `layer` for `target`."""
    return layer == target or layer.endswith(f".{target}")
