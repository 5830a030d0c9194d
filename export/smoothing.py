"""SmoothQuant: evens out the input channels of linear layers, which is exact in float32.

Each channel's factor divides the layer before (the weight and bias of a norm, the attention values,
or the up projection of a gated MLP) and multiplies the rows of the linear layer's weight. Source:
Xiao et al., "SmoothQuant" (2022); here the strength is chosen for each linear layer by its output
error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from issun.export.kinds import Kind
from issun.export.network import Network
from issun.export.weights import Array, Tensor

STRENGTHS = (0.35, 0.5, 0.65, 0.8)  # alpha: 0 evens out the weights only, 1 the activations only

Size = Callable[[Array], Array]  # channels (channel, value) -> the size of each

# Inputs (rows, in) and a weight (in, out) -> the squared error of their quantized product.
Loss = Callable[[Array, Array], float]
GetWeight = Callable[[str], Array]

# The fields of `Factors`, and the linear layers whose inputs they divide.
PLACES = {"attention": ("qkv",), "value": ("out",), "mlp": ("gate", "up"), "down": ("down",)}

_ROWS, _COLUMNS = 256, 256  # sample of inputs and weight on which strengths are compared


@dataclass(frozen=True, slots=True)
class Factors:
    """The smoothing factors of one block, one per input channel of a linear layer.

    `value` has one factor per channel of the values, which the query heads of a group share.
    `down` exists in gated MLPs only: there the inputs of `down` are proportional to the outputs of
    `up`, so that dividing these divides the inputs.
    """

    network: Network
    attention: Array  # for the inputs of qkv
    value: Array  # for the inputs of out
    mlp: Array  # for the inputs of gate and up
    down: Array | None = None

    def apply(self, name: str, array: Array) -> Array:
        """The block's tensor `name` after smoothing."""
        part, _, kind = name.rpartition(".")
        factor = self.inputs.get(part)
        if kind == "weight" and factor is not None:
            array = array * factor[:, None]
        outputs = self.outputs.get(part)
        return array if outputs is None else array / outputs

    @property
    def inputs(self) -> dict[str, Array]:
        """The factors of each linear layer's inputs, for every channel."""
        found = {"qkv": self.attention, "out": self.heads, "gate": self.mlp, "up": self.mlp}
        return found if self.down is None else found | {"down": self.down}

    @property
    def outputs(self) -> dict[str, Array]:
        """What divides the outputs of norms and linear layers, for every channel."""
        unchanged = np.ones(self.network.n_head * self.network.kv_head_dim + len(self.value))
        qkv = np.concatenate([unchanged, self.value]).astype(np.float32)
        found = {"norm_1": self.attention, "norm_2": self.mlp, "qkv": qkv}
        return found if self.down is None else found | {"up": self.down}

    @property
    def heads(self) -> Array:
        """`value` for every query head."""
        return share_values(self.network, self.value)

    def divide(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs of the block's linear layers by name, after smoothing."""
        factors = self.inputs
        return {
            name: rows / factors[name] if name in factors else rows for name, rows in inputs.items()
        }


def share_values(network: Network, value: Array) -> Array:
    """Repeat one number per channel of the KV heads for the query heads that share them."""
    groups = value.reshape(network.n_kv_head, 1, network.kv_head_dim)
    share = (network.n_kv_head, network.n_head // network.n_kv_head, network.kv_head_dim)
    return np.broadcast_to(groups, share).reshape(-1)


class SmoothedTensor(Tensor):
    """A stored tensor after smoothing."""

    def __init__(self, stored: Tensor, part: str, factors: Factors) -> None:
        super().__init__(stored.name, stored.shape, stored.dtype)
        self._stored, self._part, self._factors = stored, part, factors

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        return self._factors.apply(self._part, self._stored.read())[start:stop]


def smoothed(tensors: Mapping[str, Tensor], layer: int, factors: Factors) -> dict[str, Tensor]:
    """The tensors of block `layer` after smoothing."""
    at = f"h.{layer}."
    return {
        name: SmoothedTensor(tensor, name.removeprefix(at), factors)
        for name, tensor in tensors.items()
        if name.startswith(at)
    }


def peak(channels: Array) -> Array:
    """The largest magnitude of each channel."""
    # np.abs would copy 67 MB
    largest: Array = np.maximum(channels.max(axis=1), -channels.min(axis=1))
    return largest


def root_mean_square(channels: Array) -> Array:
    """The root mean square of each channel."""
    squares = np.einsum("ij,ij->i", channels, channels)  # makes no array of all squares
    size: Array = np.sqrt(squares / np.float32(channels.shape[1]))
    return size


# The peak of a block sets the steps of int4. In int8 a channel's typical size is the better guide:
# on ja-small it lowers the KL by 5 %, and raises that of int4 by 8 % on some texts.
SIZES: dict[Kind, tuple[Size, ...]] = {"int8": (peak, root_mean_square), "int4": (peak,)}


def find_factors(
    network: Network,
    inputs: Mapping[str, Array],
    get: GetWeight,
    loss: Loss,
    sizes: Sequence[Size] = (peak,),
) -> Factors:
    """The best factors for a block; `get` returns the weights of its linear layers by name.

    The factors of each of `sizes` are tried, which measure channels of the inputs and the weight.
    """

    def best(name: str, weight: Array, group: int = 1) -> Array:
        return _best(inputs[name], weight, loss, _Grouped(group, network.kv_head_dim), sizes)

    queries = network.n_head // network.n_kv_head
    value = best("out", get("out"), queries).reshape(network.n_kv_head, queries, -1)[:, 0]
    mlp = np.concatenate([get("gate"), get("up")], axis=1) if network.gated else get("up")
    return Factors(
        network,
        attention=best("qkv", get("qkv")),
        value=value.reshape(-1),
        mlp=best("up", mlp),
        down=best("down", get("down")) if network.gated else None,
    )


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Channels of `count` heads in a row that must have the same factor."""

    count: int
    head_dim: int

    def largest(self, values: Array) -> Array:
        """The largest value of each group of channels, for all of them."""
        if self.count == 1:
            return values
        heads = values.reshape(-1, self.count, self.head_dim)
        most = heads.max(axis=1, keepdims=True)
        return np.broadcast_to(most, heads.shape).reshape(-1)


def sample(inputs: Array, weight: Array) -> tuple[Array, Array]:
    """Some rows of the inputs and some columns of the weight, all quantized independently."""
    rows, columns = -(-len(inputs) // _ROWS), -(-weight.shape[1] // _COLUMNS)
    return inputs[::rows], np.ascontiguousarray(weight[:, ::columns])


def _best(
    inputs: Array,
    weight: Array,
    loss: Loss,
    grouped: _Grouped,
    sizes: Sequence[Size] = (peak,),
) -> Array:
    """The channels' factors with the least loss; ones if no strength improves it."""
    inputs = inputs.reshape(-1, inputs.shape[-1])
    rows, columns = sample(inputs, weight)
    best = np.ones(len(weight), np.float32)
    least = loss(rows, columns)
    for size in sizes:
        of_inputs, of_weight = grouped.largest(size(inputs.T)), grouped.largest(size(weight))
        for strength in STRENGTHS:
            factor = _factor(of_inputs, of_weight, strength)
            value = loss(rows / factor, columns * factor[:, None])
            if value < least:
                best, least = factor, value
    return best


def _factor(of_inputs: Array, of_weight: Array, strength: float) -> Array:
    """inputs^strength / weight^(1 - strength), normalized; 1 for channels that are all zero."""
    used = (of_inputs > 1e-12) & (of_weight > 1e-12)
    logs = np.zeros(len(of_inputs))
    logs[used] = strength * np.log(of_inputs[used]) - (1 - strength) * np.log(of_weight[used])
    logs[used] -= logs[used].mean() if used.any() else 0
    factor: Array = np.exp(np.clip(logs, -12, 12)).astype(np.float32)
    return factor
