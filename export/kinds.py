"""The precisions of a linear layer and of an export, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Uniform = Literal["float32", "int8", "int4"]  # one precision for all linear layers
Precision = Literal["float32", "int8", "int4", "mixed"]
Kind = Literal["int4", "int4-32", "int8", "int8-blocks", "float32"]  # of one linear layer
PRECISIONS: tuple[Uniform, ...] = ("float32", "int8", "int4")
KINDS: tuple[Kind, ...] = ("int4", "int4-32", "int8", "int8-blocks", "float32")


@dataclass(frozen=True, slots=True)
class Blocks:
    """A format of MatMulNBits: bits per weight, and weights that share a scale."""

    bits: int
    block: int


def rounds_twice(base: str) -> bool:
    """Whether an int8 linear layer rounds its inputs twice, unless it has a floor.

    An error in the first block passes through all other blocks.
    """
    return base.startswith("h.0.")


# `int8` has one scale for each output channel and `float32` has none. Activations are rounded in
# blocks of the same size as the weights, and per row in `int8`.
BLOCKS: dict[Kind, Blocks] = {
    "int4": Blocks(4, 128),
    "int4-32": Blocks(4, 32),
    "int8-blocks": Blocks(8, 32),
}
# Also of the head, which rounds its inputs in blocks of the same size. On ja-small, blocks of 128
# there cost as much of int8's divergence as all linear layers together, blocks of 32 half of that.
EMBEDDING = Blocks(8, 32)
