"""The tensors of a bundle, each computed from the checkpoint when it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.errors import CheckpointError
from issun.export.gptq import Factor, factorize, hessian, quantize_gptq
from issun.export.gptq_store import GPTQStore
from issun.export.kinds import BLOCKS, EMBEDDING, Blocks, Kind, Precision, rounds_twice
from issun.export.network import Network
from issun.export.quantization_loss import quantize_linear
from issun.export.quantize import Quantized, quantize_blocks, quantize_columns, row_groups
from issun.export.shared import SharedTensor, lazy_tensor
from issun.export.smoothing import Factors, smoothed
from issun.export.weights import Array, Tensor

_ROWS = 1024  # of a table that are read at a time


class WeightSource(Protocol):
    """The weights as `build_graph` needs them."""

    precision: Precision

    def kind(self, base: str) -> Kind:
        """The precision of a linear layer."""

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear layer's weight in the graph."""

    def has(self, name: str) -> bool:
        """True if the network has this tensor; linear layers may do without a bias."""

    def floor(self, base: str) -> float | None:
        """What is added to the inputs of a linear layer in int8 so that they are not negative."""

    def outlier_channels(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear layer that are multiplied in float32, if any."""


class CheckpointWeights:
    """A checkpoint's weights in a precision; each is read only when onnx_ir writes it."""

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, Tensor],
        precision: Precision,
    ) -> None:
        self.network, self.precision = network, precision
        self._tensors = dict(tensors)
        self._quantized: dict[tuple[str, Kind], SharedTensor] = {}
        self._gptq: dict[tuple[str, Kind], Callable[[], Quantized]] = {}
        self.store: GPTQStore | None = None  # where GPTQ results are kept, else in memory
        self.factors: dict[int, Factors] = {}  # of the smoothed layers
        self.outliers: dict[str, NDArray[np.int64]] = {}
        self.kinds: dict[str, Kind] = {}  # of each linear layer, for mixed precision

    def kind(self, base: str) -> Kind:
        """The precision of a linear layer."""
        return self.kinds.get(base, "int4") if self.precision == "mixed" else self.precision

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""
        base, _, part = name.rpartition(".")
        weight = f"{base}.weight"
        if base == "positions" and self.precision != "float32":
            return self._float16(name)
        exact = self.precision == "float32" or part == "bias"
        if exact or len(self.shape(weight)) == 1:
            return self._float32(name)
        if base in ("embed", "head"):
            return self._blocks(base, part, self.shape(weight), EMBEDDING)
        return self._linear_tensor(name)

    def _linear_tensor(self, name: str) -> ir.TensorProtocol:
        base, _, part = name.rpartition(".")
        if self.kind(base) == "float32":
            return self._float32(name)
        if part in ("outlier_weight", "inlier_mask"):
            return self._outlier_tensor(base, part)
        width, out = self.linear_shape(f"{base}.weight")
        if blocks := BLOCKS.get(self.kind(base)):
            return self._blocks(base, part, (out, width), blocks)
        if self.floor(base) is not None:
            return self._grouped(base, part, (width, out))
        return self._columns(base, part, (width, out))

    def embed(self, ids: NDArray[np.int64]) -> Array:
        """Token plus position embeddings of windows of ids: (window, position, n_embd)."""
        table = self._tensors["embed.weight"]
        rows = {int(i): table.read(int(i), int(i) + 1)[0] for i in np.unique(ids)}
        tokens = np.stack([[rows[int(i)] for i in window] for window in ids])
        if self.network.learned_positions:
            tokens = tokens + self.read("positions.weight")[: ids.shape[1]]
        return tokens

    def smooth(self, layer: int, factors: Factors) -> None:
        """Apply smoothing factors to the tensors of a block."""
        self.factors[layer] = factors
        self._tensors.update(smoothed(self._tensors, layer, factors))

    def set_outlier_channels(self, base: str, channels: NDArray[np.int64]) -> None:
        """Multiply these input channels of a linear layer in float32."""
        self.outliers[base] = channels

    def outlier_channels(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear layer that are multiplied in float32, if any."""
        return None if self.kind(base) == "float32" else self.outliers.get(base)

    @property
    def num_outlier_channels(self) -> int:
        """The number of outlier channels of all linear layers."""
        found = (self.outlier_channels(base) for base in self.outliers)
        return sum(len(channels) for channels in found if channels is not None)

    def head_rows(self, count: int) -> Iterator[Array]:
        """The head's weight as stored, `count` rows of the vocabulary at a time."""
        name = "embed.weight" if self.network.tie_word_embeddings else "head.weight"
        table = self._tensors[name]
        for start in range(0, table.shape[0], count):
            yield table.read(start, min(start + count, table.shape[0]))

    @property
    def linears(self) -> list[str]:
        """The names of all linear layers of the blocks."""
        weights = (n for n in self._tensors if n.startswith("h.") and n.endswith(".weight"))
        return [n.removesuffix(".weight") for n in weights if len(self.shape(n)) == 2]

    def quantized(self, base: str, kind: Kind) -> Quantized:
        """A linear layer's weight in a precision other than float32, fitted if GPTQ has run."""
        if (base, kind) in self._gptq:
            return self._gptq[base, kind]()
        weight, floor = self._without_outliers(base), self.floor(base)
        if kind == "int8" and floor is None and rounds_twice(base):
            return quantize_columns(weight)  # its inputs have 7 bits at a time
        return quantize_linear(weight, kind, floor)

    def quantize_gptq(self, bases: Sequence[str], inputs: Array) -> None:
        """Fit the 4-bit weights of linear layers to their common inputs (rows, in), and keep them.

        Raises CheckpointError for inputs that GPTQ cannot use.
        """
        kinds: tuple[Kind, ...] = ("int4", "int4-32") if self.precision == "mixed" else ("int4",)
        hess = cache(lambda: self._hessian(bases[0], inputs))

        def fit(base: str, factor: Callable[[], Factor]) -> Quantized:
            return quantize_gptq(self._without_outliers(base).T, factor())

        for kind in kinds:
            factor = cache(partial(self._factorize, bases[0], hess, BLOCKS[kind].block))
            for base in bases:
                if self.store is not None:
                    load = self.store.get_or_create(f"{base}.{kind}", partial(fit, base, factor))
                else:
                    load = partial(_same, fit(base, factor))
                self._gptq[base, kind] = load

    def _hessian(self, base: str, inputs: Array) -> Array:
        """The Hessian of a linear layer's inputs without its outlier channels."""
        if base in self.outliers:
            inputs = inputs.copy()
            inputs[:, self.outliers[base]] = 0
        return hessian(inputs)

    def _factorize(self, base: str, hess: Callable[[], Array], block: int) -> Factor:
        try:
            return factorize(hess(), block=block)
        except np.linalg.LinAlgError as error:
            raise CheckpointError(
                "GPTQ cannot quantize {name} with this text: use more text, or export with "
                "--no-gptq.",
                name=f"{base}.weight",
            ) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._tensors[name].shape

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear layer's weight."""
        width, out = self.shape(name)
        return width, out

    def has(self, name: str) -> bool:
        """True if the network has this tensor; linear layers may do without a bias."""
        return name in self._tensors

    def floor(self, base: str) -> float | None:
        """What is added to the inputs of a linear layer in int8 so that they are not negative."""
        return self.network.activation_floor if base.endswith(".down") else None

    def read(self, name: str) -> Array:
        """A tensor as float32; raises CheckpointError if it holds NaN or infinity."""
        return _finite(self._tensors[name].name, self._tensors[name].read())

    def check_outside_blocks(self) -> None:
        """Raise CheckpointError for values that cannot be exported, except in blocks.

        Embedding, positions, last norm and head are otherwise read at the end of an export. Each
        block is checked when calibration reads it, before its weights are fitted: checking all of
        them first would read the whole checkpoint once more.
        """
        for name, tensor in self._tensors.items():
            if name.startswith("h."):
                continue
            for start in range(0, tensor.shape[0], _ROWS):
                _finite(tensor.name, tensor.read(start, start + _ROWS))
            if name == "positions.weight" and self.precision != "float32":
                self._half(name)

    def _without_outliers(self, base: str) -> Array:
        """A linear layer's weight with the rows of outlier channels set to zero."""
        weight = self.read(f"{base}.weight")
        if base in self.outliers:
            weight = weight.copy()
            weight[self.outliers[base]] = 0
        return weight

    def _outlier_tensor(self, base: str, part: str) -> ir.TensorProtocol:
        """The float32 rows of outlier channels, or the mask that removes them from the input."""
        channels, (width, out) = self.outliers[base], self.shape(f"{base}.weight")
        if part == "outlier_weight":
            return lazy_tensor(
                f"{base}.{part}",
                ir.DataType.FLOAT,
                (len(channels), out),
                lambda: self.read(f"{base}.weight")[channels],
            )
        mask = np.ones(width, np.float32)
        mask[channels] = 0
        return ir.tensor(mask, name=f"{base}.{part}")

    def _float32(self, name: str) -> ir.TensorProtocol:
        return lazy_tensor(name, ir.DataType.FLOAT, self.shape(name), lambda: self.read(name))

    def _float16(self, name: str) -> ir.TensorProtocol:
        shape = self.shape(name)
        return lazy_tensor(name, ir.DataType.FLOAT16, shape, lambda: self._half(name))

    def _half(self, name: str) -> NDArray[np.float16]:
        with np.errstate(over="ignore"):
            half = self.read(name).astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError(
                "{name} has values beyond 65,504, the limit of float16: export with "
                "--precision float32.",
                name=self._tensors[name].name,
            )
        return half

    def _columns(self, base: str, part: str, shape: tuple[int, int]) -> ir.TensorProtocol:
        """The values or scales of an int8 linear layer."""
        shared = self._shared(base, lambda: self.quantized(base, "int8"), "int8")
        name = f"{base}.{part}"
        if part == "scale":
            return lazy_tensor(name, ir.DataType.FLOAT, shape[1:], shared.scales)
        return lazy_tensor(name, ir.DataType.INT8, shape, shared.values)

    def _grouped(self, base: str, part: str, shape: tuple[int, int]) -> ir.TensorProtocol:
        """Values or scales of a group, or the bias that undoes the shift of an int8 layer's input.

        (x + floor) @ w + b - floor * sum(w) = x @ w + b, with floor * sum(w) folded into the bias.
        """
        (width, out), groups = shape, row_groups(shape[0])
        name, readers = f"{base}.{part}", 2 * groups + 1
        shared = self._shared(base, lambda: self.quantized(base, "int8"), "int8", readers=readers)
        if part == "folded_bias":

            def fold() -> Array:
                shift = np.float32(self.floor(base) or 0) * shared.column_sums()
                return self.read(f"{base}.bias") - shift if self.has(f"{base}.bias") else -shift

            return lazy_tensor(name, ir.DataType.FLOAT, (out,), fold)
        kind, _, index = part.partition("_")
        group, size = int(index), width // groups
        if kind == "scale":
            return lazy_tensor(name, ir.DataType.FLOAT, (out,), lambda: shared.scales()[group])
        rows = slice(group * size, (group + 1) * size)
        return lazy_tensor(name, ir.DataType.INT8, (size, out), lambda: shared.values()[rows])

    def _blocks(
        self, base: str, part: str, shape: tuple[int, ...], form: Blocks
    ) -> ir.TensorProtocol:
        (out, width), bits, block = shape, form.bits, form.block
        blocks = -(-width // block)

        kind = self.kind(base)

        def quantize() -> Quantized:
            if base not in ("embed", "head"):
                return self.quantized(base, kind)
            # They are stored (out, in), and so large that they are read in parts.
            read = self._tensors[f"{base}.weight"].read
            return quantize_blocks(read, (out, width), bits=bits, block=block)

        shared = self._shared(base, quantize, kind)
        if part == "scale":
            return lazy_tensor(f"{base}.scale", ir.DataType.FLOAT, (out, blocks), shared.scales)
        shape = (out, blocks, block * bits // 8)
        return lazy_tensor(f"{base}.weight", ir.DataType.UINT8, shape, shared.values)

    def _shared(
        self, base: str, quantize: Callable[[], Quantized], kind: Kind, *, readers: int = 2
    ) -> SharedTensor:
        name = self._tensors[f"{base}.weight"].name
        shared = SharedTensor(name, quantize, readers=readers)
        return self._quantized.setdefault((base, kind), shared)


def _finite(name: str, array: Array) -> Array:
    """The array; raises CheckpointError if it holds NaN or infinity."""
    if not np.isfinite(array.min()) or not np.isfinite(array.max()):
        raise CheckpointError("{name} contains NaN or infinity.", name=name)
    return array


def _same(quantized: Quantized) -> Quantized:
    return quantized
