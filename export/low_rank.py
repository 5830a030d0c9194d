"""The low-rank updates of an adapter in the graph's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from issun.export.canonical import (
    LINEARS,
    channel_orders,
    stored_names,
    stored_outputs,
    take_channels,
)
from issun.export.lora import Pair
from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.weights import Array


@dataclass(frozen=True, slots=True)
class LowRank:
    """Adds x @ a.T @ b.T to the outputs of a linear layer of the graph.

    `a` is (r, in) and `b` is (out, r), in the order of the graph's channels; `b` includes the
    scale lora_alpha / r.
    """

    a: Array
    b: Array


def canonical_low_rank(
    pairs: Mapping[str, Pair], family: Family, network: Network
) -> dict[str, LowRank]:
    """The updates by the canonical names of the layers that they change, such as `h.0.qkv`.

    If a layer is stored as several tensors, its update has the sum of their ranks: the matrices A
    stand below each other, and those of B on the diagonal. `pairs` are as in `Adapter.pairs`.
    """
    names = stored_names(family)
    linears = [part for part in LINEARS if part in family.block]
    bases = [f"h.{layer}.{part}" for layer in range(network.n_layer) for part in linears]
    stored = {base: names(base) for base in [*family.top, *bases]} | {"head": (family.head,)}
    return {
        base: _low_rank(base.rpartition(".")[2], [pairs.get(it) for it in parts], family, network)
        for base, parts in stored.items()
        if not pairs.keys().isdisjoint(parts)
    }


def _low_rank(part: str, pairs: Sequence[Pair | None], family: Family, network: Network) -> LowRank:
    """The update of one layer, which is stored as several tensors or one."""
    read = [None if pair is None else pair.read() for pair in pairs]
    a = np.concatenate([found[0] for found in read if found])
    rows, first = [], 0  # the first rank of the next pair
    for index, (pair, found) in enumerate(zip(pairs, read, strict=True)):
        if pair is None or found is None:
            outputs = stored_outputs(part, len(pairs), network)[index]
            rows.append(np.zeros((outputs, len(a)), np.float32))
            continue
        b = found[1] * np.float32(pair.scale)
        rank = b.shape[1]
        rows.append(np.pad(b, ((0, 0), (first, len(a) - first - rank))))
        first += rank
    b = np.concatenate(rows)
    inputs, order = channel_orders(part, family, network)
    a = a if inputs is None else take_channels(a, inputs, 1)
    return LowRank(a, b if order is None else take_channels(b, order, 0))
