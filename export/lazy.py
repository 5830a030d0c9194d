"""The tensors of a bundle, each computed from the checkpoint at the moment it is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.config import GPT2Config
from issun.export.errors import CheckpointError
from issun.export.gptq import hessian, quantize_gptq
from issun.export.quantize import Quantized, quantize_blocks, quantize_columns
from issun.export.smoothing import Factors, smoothed
from issun.export.weights import Array, Tensor

Precision = Literal["float32", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "int4")
EMBEDDING_BLOCK = 128
LINEAR_BLOCK = 128  # fastest of the block sizes; 32 is a little more faithful and slower


class WeightSource(Protocol):
    """What the graph needs of its weights."""

    precision: Precision
    block: int

    @property
    def fused_bias(self) -> bool:
        """True where the linear operator adds the bias itself."""

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear's weight as the graph uses it."""


class CheckpointWeights:
    """Weights of a checkpoint in a precision; nothing is read before onnx_ir writes it."""

    def __init__(
        self,
        config: GPT2Config,
        tensors: Mapping[str, Tensor],
        precision: Precision,
        *,
        block: int = LINEAR_BLOCK,
    ) -> None:
        self.config, self.precision, self.block = config, precision, block
        self._tensors = dict(tensors)
        self._quantized: dict[str, _Once] = {}
        self._fitted: dict[str, Quantized] = {}

    @property
    def fused_bias(self) -> bool:
        """True where the linear operator adds the bias itself."""
        return self.precision == "int4"

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""
        base, _, part = name.rpartition(".")
        weight = f"{base}.weight"
        if self.precision == "float32" or len(self.shape(weight)) == 1 or base == "wpe":
            return self._plain(name)
        if part == "bias":
            return self._plain(name)
        if base in ("wte", "lm_head"):
            return self._blocks(base, part, self.shape(weight), 8, EMBEDDING_BLOCK)
        width, out = self.linear_shape(weight)
        if self.precision == "int4":
            return self._blocks(base, part, (out, width), 4, self.block)
        once = self._once(base, lambda: quantize_columns(self.read(weight)))
        if part == "scale":
            return _lazy(name, ir.DataType.FLOAT, (out,), once.scales)
        return _lazy(name, ir.DataType.INT8, (width, out), once.values)

    def stored(self, layer: int, part: str) -> Array:
        """A tensor of a block as it is now, its heads not padded."""
        return self._tensors[f"h.{layer}.{part}"].read()

    def embed(self, ids: NDArray[np.int64]) -> Array:
        """Token and position embeddings of windows of ids: (window, position, n_embd)."""
        table = self._tensors["wte.weight"]
        rows = {int(i): table.read(int(i), int(i) + 1)[0] for i in np.unique(ids)}
        tokens = np.stack([[rows[int(i)] for i in window] for window in ids])
        embedded: Array = tokens + self._tensors["wpe.weight"].read(0, ids.shape[1])
        return embedded

    def smooth(self, layer: int, factors: Factors) -> None:
        """Put factors into the tensors of a block."""
        self._tensors.update(smoothed(self._tensors, layer, factors))

    def fit(self, base: str, inputs: Array) -> None:
        """Quantize an int4 linear by GPTQ on its inputs (rows, in); kept until it is written."""
        weight = self.read(f"{base}.weight").T
        have, want = self.config.head_dim, self.config.kv_head_dim
        if inputs.shape[1] != weight.shape[1]:  # the heads of attention's output
            heads = inputs.reshape(len(inputs), self.config.n_head, have)
            inputs = np.pad(heads, [(0, 0), (0, 0), (0, want - have)]).reshape(len(inputs), -1)
        second = hessian(inputs)
        self._fitted[base] = quantize_gptq(weight.copy(), second, block=self.block)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor with its heads padded as the graph has them."""
        stored, heads = self._tensors[name].shape, self.config.n_head
        padded = heads * self.config.kv_head_dim
        if name.endswith("attn.c_attn.weight"):
            return (stored[0], 3 * padded)
        if name.endswith("attn.c_attn.bias"):
            return (3 * padded,)
        if name.endswith("attn.c_proj.weight"):
            return (padded, stored[1])
        return stored

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear's weight as the graph uses it."""
        width, out = self.shape(name)
        return width, out

    def read(self, name: str) -> Array:
        """A stored tensor as float32, its heads padded with zeros to a multiple of 8: exact."""
        array = self._tensors[name].read()
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise CheckpointError("{name} holds NaN or infinity.", name=name)
        heads, have, want = self.config.n_head, self.config.head_dim, self.config.kv_head_dim
        if have == want:
            return array
        if name.endswith(("attn.c_attn.weight", "attn.c_attn.bias")):
            parts = array.reshape(*array.shape[:-1], 3 * heads, have)
            padding = [(0, 0)] * (parts.ndim - 1) + [(0, want - have)]
            return np.pad(parts, padding).reshape(*array.shape[:-1], -1)
        if name.endswith("attn.c_proj.weight"):
            parts = array.reshape(heads, have, array.shape[1])
            return np.pad(parts, [(0, 0), (0, want - have), (0, 0)]).reshape(-1, array.shape[1])
        return array

    def _plain(self, name: str) -> ir.TensorProtocol:
        return _lazy(name, ir.DataType.FLOAT, self.shape(name), lambda: self.read(name))

    def _blocks(
        self, base: str, part: str, shape: tuple[int, ...], bits: int, block: int
    ) -> ir.TensorProtocol:
        out, width = shape
        blocks = -(-width // block)

        def quantize() -> Quantized:
            if base in self._fitted:
                return self._fitted.pop(base)
            name = f"{base}.weight"
            if bits == 8:  # (out, in) as stored: the largest tensor, read a few rows at a time
                return quantize_blocks(
                    self._tensors[name].read, (out, width), bits=bits, block=block
                )
            transposed = self.read(name).T
            return quantize_blocks(
                lambda start, stop: transposed[start:stop], (out, width), bits=bits, block=block
            )

        once = self._once(base, quantize)
        if part == "scale":
            return _lazy(f"{base}.scale", ir.DataType.FLOAT, (out, blocks), once.scales)
        shape = (out, blocks, block * bits // 8)
        return _lazy(f"{base}.weight", ir.DataType.UINT8, shape, once.values)

    def _once(self, base: str, quantize: Callable[[], Quantized]) -> _Once:
        return self._quantized.setdefault(base, _Once(base, quantize))


class _Once:
    """Quantizes one weight for its two readers, the writer of values and that of scales."""

    def __init__(self, name: str, quantize: Callable[[], Quantized]) -> None:
        self._name, self._quantize = name, quantize
        self._lock = threading.Lock()
        self._held: Quantized | None = None

    def values(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        return self._take().values

    def scales(self) -> Array:
        return self._take().scales

    def _take(self) -> Quantized:
        """The result: kept for the second reader, dropped when that one has it."""
        with self._lock:
            if self._held is not None:
                held, self._held = self._held, None
                return held
            self._held = self._quantize()
            if not np.isfinite(self._held.scales).all():
                raise CheckpointError("{name} holds NaN or infinity.", name=f"{self._name}.weight")
            return self._held


def _lazy(
    name: str,
    dtype: ir.DataType,
    shape: tuple[int, ...],
    compute: Callable[[], NDArray[np.generic]],
) -> ir.LazyTensor:
    return ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(compute()), name=name),
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )


class StoredWeights:
    """The tensors of a written graph, for another small graph over the same data file."""

    def __init__(self, source: CheckpointWeights, model: ir.Model) -> None:
        self._source = source
        self._tensors = {name: v.const_value for name, v in model.graph.initializers.items()}
        self.precision, self.block, self.fused_bias = (
            source.precision,
            source.block,
            source.fused_bias,
        )

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The stored tensor with this name."""
        tensor = self._tensors[name]
        if tensor is None:
            raise KeyError(name)
        return tensor

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear's weight as the graph uses it."""
        return self._source.linear_shape(name)
