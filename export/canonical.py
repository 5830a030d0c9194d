"""Brings the tensors of every family into one layout, that of the graph.

In this canonical layout the weights of linear layers are (in, out). `qkv` holds queries, keys and
values side by side, with each head padded to `kv_head_dim`. Channels that rotate together are half
a head apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.weights import Array, Tensor

Order = NDArray[np.int64]
Shape = tuple[int, ...]

LINEARS = ("qkv", "out", "gate", "up", "down")


class Arranged(Tensor):
    """Stored tensors, concatenated, brought into the graph's channel order, and transposed.

    `order` gives the stored channel on `axis` for each channel of the graph; -1 stands for zeros.
    """

    def __init__(
        self,
        shape: Shape,
        parts: Sequence[Tensor],
        *,
        order: Order | None,
        axis: int,
        transposed: bool,
        scale: float = 1.0,
    ) -> None:
        super().__init__(", ".join(part.name for part in parts), shape, parts[0].dtype)
        self._parts, self._order, self._axis = parts, order, axis
        self._transposed, self._scale = transposed, np.float32(scale)

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        array = self._joined()
        if self._order is not None:
            array = take_channels(array, self._order, self._axis)
        if self._scale != 1:
            array = array * self._scale
        return (array.T if self._transposed else array)[start:stop]

    def _joined(self) -> Array:
        """The parts, concatenated along the first axis: several parts are stored (out, in)."""
        if len(self._parts) == 1:
            return self._parts[0].read()
        return np.concatenate([part.read() for part in self._parts])


class FirstRows(Tensor):
    """The first `count` rows of a tensor."""

    def __init__(self, source: Tensor, count: int) -> None:
        super().__init__(source.name, (count, *source.shape[1:]), source.dtype)
        self._source = source

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        count = self.shape[0]
        return self._source.read(start, count if stop is None else min(stop, count))


def stored_names(family: Family) -> Callable[[str], tuple[str, ...]]:
    """A function from a canonical name to the stored names, without `family.base` and `.weight`."""

    def names(base: str) -> tuple[str, ...]:
        *layer, part = base.split(".")
        if not layer:
            return (family.top[part],)
        found = family.block[part]
        parts = (found,) if isinstance(found, str) else found
        return tuple(family.layer.format(layer[1]) + name for name in parts)

    return names


def linear_shapes(network: Network) -> dict[str, tuple[int, int]]:
    """(in, out) of each linear layer of a block in a checkpoint, where heads are not padded."""
    width, inner, head = network.n_embd, network.n_inner, network.head_dim
    shapes = {
        "qkv": (width, (network.n_head + 2 * network.n_kv_head) * head),
        "out": (network.n_head * head, width),
        "gate": (width, inner),
        "up": (width, inner),
        "down": (inner, width),
    }
    return shapes if network.gated else {k: v for k, v in shapes.items() if k != "gate"}


def expected_shapes(family: Family, network: Network) -> dict[str, Shape]:
    """The stored shape of every weight by its stored name, without the family's base.

    A tied head is not included.
    """
    names = stored_names(family)
    width, vocab = network.n_embd, network.vocab_size
    found: dict[str, Shape] = {family.embedding_weight: (vocab, width)}
    if network.learned_positions:
        found[f"{names('positions')[0]}.weight"] = (network.n_positions, width)
    for layer in range(network.n_layer):
        for part in family.block:
            found |= _part_shapes(family, network, part, names(f"h.{layer}.{part}"))
    found |= _part_shapes(family, network, "norm", names("norm"))
    if not network.tie_word_embeddings:
        found[family.head_weight] = (vocab, width)
    return found


def _part_shapes(
    family: Family, network: Network, part: str, stored: tuple[str, ...]
) -> dict[str, Shape]:
    """The stored tensors of one part of the network."""
    if part in ("q_norm", "k_norm"):
        return {f"{stored[0]}.weight": (network.head_dim,)} if network.head_norms else {}
    if part not in LINEARS:
        kinds = ("weight", "bias") if network.norm == "layer" else ("weight",)
        return {f"{stored[0]}.{kind}": (network.n_embd,) for kind in kinds}
    found: dict[str, Shape] = {}
    rows, _ = linear_shapes(network)[part]
    for name, out in zip(stored, stored_outputs(part, len(stored), network), strict=True):
        found[f"{name}.weight"] = (rows, out) if family.stored_in_out else (out, rows)
        if part in network.biases:
            found[f"{name}.bias"] = (out,)
    return found


def stored_outputs(part: str, count: int, network: Network) -> tuple[int, ...]:
    """The number of output channels of each of `count` tensors that a linear layer is stored as."""
    if part == "qkv" and count == 3:
        keys = network.n_kv_head * network.head_dim
        return network.n_head * network.head_dim, keys, keys
    return (linear_shapes(network)[part][1],)


def canonical_tensors(
    stored: Mapping[str, Tensor], family: Family, network: Network
) -> dict[str, Tensor]:
    """Every tensor by its canonical name; nothing is read.

    `stored` has all of `expected_shapes`, and may have a head.
    """
    names = stored_names(family)
    head = f"{family.head}.weight"
    found: dict[str, Tensor] = {"head.weight": stored[head]} if head in stored else {}
    for base in _bases(family, network):
        for part in ("weight", "bias"):
            parts = [stored[n] for name in names(base) if (n := f"{name}.{part}") in stored]
            if parts:
                found[f"{base}.{part}"] = _canonical(f"{base}.{part}", parts, family, network)
    return found


def _bases(family: Family, network: Network) -> list[str]:
    blocks = [f"h.{layer}.{part}" for layer in range(network.n_layer) for part in family.block]
    return [*family.top, *blocks]


def _canonical(name: str, parts: list[Tensor], family: Family, network: Network) -> Tensor:
    base, _, kind = name.rpartition(".")
    part = base.rpartition(".")[2]
    transposed = part in LINEARS and kind == "weight" and not family.stored_in_out
    axis, order, scale = 0, None, 1.0
    shape = parts[0].shape
    if part in LINEARS:
        inputs, outputs = channel_orders(part, family, network)
        whole = linear_shapes(network)[part]
        shape = whole if kind == "weight" else whole[1:]
        if outputs is not None:
            order, axis = outputs, -1 if family.stored_in_out else 0
            shape = (*shape[:-1], len(order))
        elif inputs is not None and kind == "weight":
            order, axis = inputs, 0 if family.stored_in_out else -1
            shape = (len(order), whole[1])
    elif part in ("q_norm", "k_norm"):
        order = _order(network, rotates=True)
        # Padding lowers the mean of squares by the factor width / padded.
        scale = (network.head_dim / network.kv_head_dim) ** 0.5
        shape = (network.kv_head_dim,)
    if order is not None and np.array_equal(order, np.arange(len(order))):
        order = None
    if order is None and len(parts) == 1 and not transposed:
        return parts[0]
    return Arranged(shape, parts, order=order, axis=axis, transposed=transposed, scale=scale)


def channel_orders(
    part: str, family: Family, network: Network
) -> tuple[Order | None, Order | None]:
    """The stored channel for each input and each output channel of a linear layer in the graph.

    None stands for the stored order, -1 for a channel of zeros. The layer's stored tensors are
    concatenated along their outputs.
    """
    if part == "qkv":
        return None, _qkv_order(network, by_head=family.qkv_by_head)
    if part == "out" and network.kv_head_dim != network.head_dim:
        heads = range(network.n_head)
        return _in_heads(heads, _order(network, rotates=False), network.head_dim), None
    return None, None


def _qkv_order(network: Network, *, by_head: bool) -> Order:
    """The stored channel for each channel of the graph: all queries, all keys, then all values."""
    heads, groups, width = network.n_head, network.n_kv_head, network.head_dim
    queries, keys = range(heads), range(heads, heads + groups)
    values = range(heads + groups, heads + 2 * groups)
    if by_head:  # each head's query, key and value are stored side by side
        queries, keys, values = (range(i, 3 * heads, 3) for i in range(3))
    turning, still = _order(network, rotates=True), _order(network, rotates=False)
    return np.concatenate(
        [_in_heads([*queries, *keys], turning, width), _in_heads(values, still, width)]
    )


def _in_heads(heads: Sequence[int], order: Order, width: int) -> Order:
    """`order`, which is that of one head, repeated for `heads` of `width` stored channels each."""
    starts = width * np.array(heads)[:, None]
    return np.where(order >= 0, starts + order, -1).reshape(-1)


def take_channels(array: Array, order: Order, axis: int) -> Array:
    """The array with its channels on `axis` in `order`; -1 gives zeros."""
    found: Array = np.take(array, np.maximum(order, 0), axis=axis)
    if (order < 0).any():
        np.moveaxis(found, axis, 0)[order < 0] = 0
    return found


def _order(network: Network, *, rotates: bool) -> Order:
    """The stored channel for each channel of a head in the graph; -1 for padding.

    The graph rotates channel j with j + kv_head_dim / 2, a checkpoint with j + dim / 2.
    """
    order = np.full(network.kv_head_dim, -1)
    rotary = network.rotary
    if rotary is None or not rotates:
        order[: network.head_dim] = np.arange(network.head_dim)
        return order
    pairs, half = rotary.dim // 2, network.kv_head_dim // 2
    order[:pairs] = np.arange(pairs)
    order[half : half + pairs] = np.arange(pairs, rotary.dim)
    free = np.flatnonzero(order < 0)[: network.head_dim - rotary.dim]
    order[free] = np.arange(rotary.dim, network.head_dim)
    return order
