"""Merges LoRA adapters into the tensors of a checkpoint, each when it is read.

The sum W + weight * scale * B @ A is that of PEFT's `merge_and_unload`, in float32; for several
adapters that of `add_weighted_adapter` with `combination_type="cat"`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from issun.export.errors import CheckpointError
from issun.export.lora import Adapter, Pair
from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.tensors import are_equal
from issun.export.weights import Array, Tensor

_CHUNK_BYTES = 8 << 20  # of a weight that are merged at a time


@dataclass(frozen=True, slots=True)
class WeightedAdapter:
    """An adapter, and the weight of its updates in the sum."""

    adapter: Adapter
    weight: float


class MergedTensor(Tensor):
    """A weight plus low-rank updates, each with its weight."""

    def __init__(self, base: Tensor, updates: Sequence[tuple[Pair, float]]) -> None:
        super().__init__(base.name, base.shape, base.dtype)
        self._base, self._updates = base, updates

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        factors = [_factors(pair, weight) for pair, weight in self._updates]
        merged = np.empty((max(stop - start, 0), *self.shape[1:]), np.float32)
        step = max(1, _CHUNK_BYTES // (4 * math.prod(self.shape[1:])))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            rows = self._base.read(first, last)
            for left, right in factors:
                rows = rows + left[first:last] @ right
            merged[first - start : last - start] = rows
        return merged


def _factors(pair: Pair, weight: float) -> tuple[Array, Array]:
    """Two matrices whose product is the update of the weight as it is stored."""
    a, b = pair.read()
    b = b * np.float32(weight * pair.scale)
    return (a.T, b.T) if pair.stored_in_out else (b, a)


def merge(
    stored: Mapping[str, Tensor],
    merged: Sequence[WeightedAdapter],
    family: Family,
    network: Network,
) -> tuple[dict[str, Tensor], Network]:
    """The tensors by their stored names with all adapters, and the network they make up.

    The vocabulary may have grown. A tied head becomes a tensor of its own if the adapters change
    it and the embedding differently, as in the model that was trained. Raises CheckpointError for
    adapters that change nothing, or that cannot be combined.
    """
    replaced = _replaced(stored, merged, family, network)
    updates: dict[str, list[tuple[Pair, float]]] = {}
    for it in merged:
        for module, pair in it.adapter.pairs.items():
            updates.setdefault(f"{module}.weight", []).append((pair, it.weight))
    tensors = {**stored, **replaced}
    if network.tie_word_embeddings and not _keeps_tie(tensors, replaced, updates, family):
        tensors.setdefault(family.head_weight, stored[family.embedding_weight])
        network = replace(network, tie_word_embeddings=False)
    elif network.tie_word_embeddings:
        tensors.pop(family.head_weight, None)
    head, embedding = family.head_weight, family.embedding_weight
    rows = tensors[embedding].shape[0]
    if head in tensors and tensors[head].shape[0] != rows:
        raise CheckpointError(
            "{names}: {embedding} has {rows} rows and {head} has {found}: the adapter must contain "
            "both, as peft saves them after a change of the vocabulary.",
            names=", ".join(it.adapter.name for it in merged),
            embedding=embedding,
            rows=rows,
            head=head,
            found=tensors[head].shape[0],
        )
    for name, pairs in updates.items():
        tensors[name] = MergedTensor(tensors[name], pairs)
    return tensors, replace(network, vocab_size=rows)


def _keeps_tie(
    tensors: Mapping[str, Tensor],
    replaced: Mapping[str, Tensor],
    updates: Mapping[str, object],
    family: Family,
) -> bool:
    """True if a tied head is still the embedding after all adapters."""
    both = {f"{name}.weight" for name in (family.head, family.top["embed"])}
    if both.isdisjoint(updates) and both <= replaced.keys():  # PEFT saves both of a tied pair
        return are_equal(*(tensors[name] for name in both))
    return both.isdisjoint({*updates, *replaced})


def _replaced(
    stored: Mapping[str, Tensor],
    merged: Sequence[WeightedAdapter],
    family: Family,
    network: Network,
) -> dict[str, Tensor]:
    """The tensors that adapters replace, without those that are as in the base model."""
    base = dict(stored)
    if network.tie_word_embeddings:
        base[family.head_weight] = base[family.embedding_weight]
    found: dict[str, Tensor] = {}
    for it in merged:
        own = {
            name: tensor
            for name, tensor in it.adapter.replaced.items()
            if tensor.shape != base[name].shape or not are_equal(tensor, base[name])
        }
        if not own:
            it.adapter.refuse_zero()
        if own and it.weight != 1:
            raise CheckpointError(
                "{name} replaces {tensor}, so that its weight can only be 1, not {weight:g}.",
                name=it.adapter.name,
                tensor=next(iter(own)),
                weight=it.weight,
            )
        if both := found.keys() & own.keys():
            raise CheckpointError(
                "{name} replaces {tensor}, which another adapter replaces too: merge only one of "
                "the two.",
                name=it.adapter.name,
                tensor=sorted(both)[0],
            )
        found |= own
    return found
