"""What defines a model family: how its config.json is read, and the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from issun.export.models.fields import Fields
from issun.export.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family's tables; `top` and `block` map canonical names to the names in checkpoints.

    The canonical names are `embed`, `positions`, `norm` and `head`, and in each layer `norm_1`,
    `qkv`, `q_norm`, `k_norm`, `out`, `norm_2`, `gate`, `up` and `down`. A part that is stored as
    several tensors has a tuple of names, in the order in which the tensors are concatenated.
    """

    network: Callable[[Fields], Network]
    classes: tuple[str, ...]  # of transformers, whose checkpoints are read
    base: str  # the prefix of all names but the head's
    head: str
    top: Mapping[str, str]
    layer: str  # the prefix of a block's names; `{}` is the layer's number
    block: Mapping[str, str | tuple[str, ...]]
    buffers: str  # a pattern for stored names, without `base`, that are not weights
    stored_in_out: bool = False  # linear layers are stored (in, out), not (out, in)
    qkv_by_head: bool = False  # each head's query, key and value are stored side by side

    @property
    def embedding_weight(self) -> str:
        """The stored name of the token embedding, without `base`."""
        return f"{self.top['embed']}.weight"

    @property
    def head_weight(self) -> str:
        """The stored name of the head."""
        return f"{self.head}.weight"

    def full_name(self, stored: str) -> str:
        """The name in the class with a head of a stored tensor or layer without `base`."""
        return stored if stored == self.head_weight else f"{self.base}{stored}"

    @property
    def part_pattern(self) -> str:
        """A pattern for the beginning of the tensors' stored names, without `base`."""
        layer = re.escape(self.layer.removesuffix(".")).replace(r"\{\}", r"\d+")
        return rf"(?:{'|'.join([layer, *map(re.escape, self.top.values())])})\."
