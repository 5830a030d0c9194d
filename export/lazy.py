"""The tensors of a bundle, each computed from the checkpoint when it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.config import ACTIVATION_FLOOR, GPT2Config
from issun.export.errors import CheckpointError
from issun.export.gptq import hessian, quantize_gptq
from issun.export.gptq_store import GPTQStore
from issun.export.quantize import Quantized, quantize_blocks, quantize_columns
from issun.export.shared import SharedTensor, lazy_tensor
from issun.export.smoothing import Factors, smoothed
from issun.export.weights import Array, Tensor

Kind = Literal["float32", "int8", "int4"]  # of one linear layer
Precision = Literal["float32", "int8", "int4", "mixed"]
PRECISIONS: tuple[Kind, ...] = ("float32", "int8", "int4")
EMBEDDING_BLOCK = 128
DOWN_PROJ = "mlp.c_proj"  # its inputs are GELU outputs, almost all of them non-negative
LINEAR_BLOCK = 128  # the fastest block size; 32 is slightly more accurate and slower


class WeightSource(Protocol):
    """The weights as `build_graph` needs them."""

    precision: Precision
    block: int

    def kind(self, base: str) -> Kind:
        """The precision of a linear layer."""

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear layer's weight in the graph."""

    def outlier_channels(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear layer that are multiplied in float32, if any."""


class CheckpointWeights:
    """A checkpoint's weights in a precision; each is read only when onnx_ir writes it."""

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
        self._quantized: dict[str, SharedTensor] = {}
        self._gptq: dict[str, Callable[[], Quantized]] = {}
        self.store: GPTQStore | None = None  # where GPTQ results are kept, else in memory
        self._outliers: dict[str, NDArray[np.int64]] = {}
        self.kinds: dict[str, Kind] = {}  # of each linear layer, for mixed precision

    def kind(self, base: str) -> Kind:
        """The precision of a linear layer."""
        return self.kinds.get(base, "int4") if self.precision == "mixed" else self.precision

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""
        base, _, part = name.rpartition(".")
        weight = f"{base}.weight"
        exact = self.precision == "float32" or base == "wpe" or part == "bias"
        if exact or len(self.shape(weight)) == 1:
            return self._float32(name)
        if base in ("wte", "lm_head"):
            return self._blocks(base, part, self.shape(weight), 8, EMBEDDING_BLOCK)
        if self.kind(base) == "float32":
            return self._float32(name)
        if part in ("outlier_weight", "inlier_mask"):
            return self._outlier_tensor(base, part)
        width, out = self.linear_shape(weight)
        if self.kind(base) == "int4":
            return self._blocks(base, part, (out, width), 4, self.block)
        return self._columns(base, part, (width, out))

    def stored(self, layer: int, part: str) -> Array:
        """A tensor of a block, with smoothing applied and heads not padded."""
        return self._finite(f"h.{layer}.{part}")

    def embed(self, ids: NDArray[np.int64]) -> Array:
        """Token plus position embeddings of windows of ids: (window, position, n_embd)."""
        table = self._tensors["wte.weight"]
        rows = {int(i): table.read(int(i), int(i) + 1)[0] for i in np.unique(ids)}
        tokens = np.stack([[rows[int(i)] for i in window] for window in ids])
        embedded: Array = tokens + self._finite("wpe.weight")[: ids.shape[1]]
        return embedded

    def smooth(self, layer: int, factors: Factors) -> None:
        """Apply smoothing factors to the tensors of a block."""
        self._tensors.update(smoothed(self._tensors, layer, factors))

    def set_outlier_channels(self, base: str, channels: NDArray[np.int64]) -> None:
        """Multiply these input channels of a linear layer in float32."""
        self._outliers[base] = channels

    def outlier_channels(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear layer that are multiplied in float32, if any."""
        return None if self.kind(base) == "float32" else self._outliers.get(base)

    @property
    def num_outlier_channels(self) -> int:
        """The number of outlier channels of all linear layers."""
        found = (self.outlier_channels(base) for base in self._outliers)
        return sum(len(channels) for channels in found if channels is not None)

    def head_rows(self, count: int) -> Iterator[Array]:
        """The head's weight as stored, `count` rows of the vocabulary at a time."""
        name = "wte.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        table = self._tensors[name]
        for start in range(0, table.shape[0], count):
            yield table.read(start, min(start + count, table.shape[0]))

    def reset(self) -> None:
        """Discard quantized tensors, after `kinds` has changed."""
        self._quantized.clear()

    def quantize_gptq(self, base: str, inputs: Array) -> None:
        """Quantize an int4 linear layer with GPTQ on its inputs (rows, in), and keep the result."""
        if self.store is not None:
            self._gptq[base] = self.store.get_or_create(base, lambda: self._run_gptq(base, inputs))
        else:
            quantized = self._run_gptq(base, inputs)
            self._gptq[base] = lambda: quantized

    def _run_gptq(self, base: str, inputs: Array) -> Quantized:
        weight = self._without_outliers(base).T
        head_dim, padded = self.config.head_dim, self.config.kv_head_dim
        if inputs.shape[1] != weight.shape[1]:  # attention outputs, whose heads are padded
            heads = inputs.reshape(len(inputs), self.config.n_head, head_dim)
            heads = np.pad(heads, [(0, 0), (0, 0), (0, padded - head_dim)])
            inputs = heads.reshape(len(inputs), -1)
        if base in self._outliers:
            inputs = inputs.copy()
            inputs[:, self._outliers[base]] = 0
        try:
            return quantize_gptq(weight.copy(), hessian(inputs), block=self.block)
        except np.linalg.LinAlgError as error:
            raise CheckpointError(
                "GPTQ cannot quantize {name} with this text: use more text, or export without "
                "--gptq.",
                name=f"{base}.weight",
            ) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor, with heads padded to `kv_head_dim`."""
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
        """(in, out) of a linear layer's weight in the graph."""
        width, out = self.shape(name)
        return width, out

    def read(self, name: str) -> Array:
        """A stored tensor as float32, with heads padded with zeros, which is exact."""
        array = self._finite(name)
        heads, head_dim = self.config.n_head, self.config.head_dim
        padding = (0, self.config.kv_head_dim - head_dim)
        if padding == (0, 0):
            return array
        if name.endswith(("attn.c_attn.weight", "attn.c_attn.bias")):
            parts = array.reshape(*array.shape[:-1], 3 * heads, head_dim)
            parts = np.pad(parts, [*[(0, 0)] * (parts.ndim - 1), padding])
            return parts.reshape(*array.shape[:-1], -1)
        if name.endswith("attn.c_proj.weight"):
            parts = array.reshape(heads, head_dim, array.shape[1])
            return np.pad(parts, [(0, 0), padding, (0, 0)]).reshape(-1, array.shape[1])
        return array

    def _finite(self, name: str) -> Array:
        array = self._tensors[name].read()
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise CheckpointError("{name} contains NaN or infinity.", name=name)
        return array

    def _without_outliers(self, base: str) -> Array:
        """A linear layer's weight with the rows of outlier channels set to zero."""
        weight = self.read(f"{base}.weight")
        if base in self._outliers:
            weight = weight.copy()
            weight[self._outliers[base]] = 0
        return weight

    def _outlier_tensor(self, base: str, part: str) -> ir.TensorProtocol:
        """The float32 rows of outlier channels, or the mask that removes them from the input."""
        channels, (width, out) = self._outliers[base], self.shape(f"{base}.weight")
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

    def _columns(self, base: str, part: str, shape: tuple[int, int]) -> ir.TensorProtocol:
        """An int8 linear layer's values or scales, or the bias that undoes the shift of its input.

        (x + floor) @ w + b - floor * sum(w) = x @ w + b, with floor * sum(w) folded into the bias.
        """
        name, readers = f"{base}.{part}", 3 if base.endswith(DOWN_PROJ) else 2
        shared = self._shared(
            base, lambda: quantize_columns(self._without_outliers(base)), readers=readers
        )
        if part == "scale":
            return lazy_tensor(name, ir.DataType.FLOAT, shape[1:], shared.scales)
        if part == "folded_bias":

            def fold() -> Array:
                floor = np.float32(ACTIVATION_FLOOR)
                return self.read(f"{base}.bias") - floor * shared.column_sums()

            return lazy_tensor(name, ir.DataType.FLOAT, shape[1:], fold)
        return lazy_tensor(name, ir.DataType.INT8, shape, shared.values)

    def _blocks(
        self, base: str, part: str, shape: tuple[int, ...], bits: int, block: int
    ) -> ir.TensorProtocol:
        out, width = shape
        blocks = -(-width // block)

        def quantize() -> Quantized:
            if base in self._gptq:
                return self._gptq[base]()
            name = f"{base}.weight"
            if bits == 8:  # the embedding, stored (out, in) and so large that it is read in parts
                return quantize_blocks(
                    self._tensors[name].read, (out, width), bits=bits, block=block
                )
            transposed = self._without_outliers(base).T
            return quantize_blocks(
                lambda start, stop: transposed[start:stop], (out, width), bits=bits, block=block
            )

        shared = self._shared(base, quantize)
        if part == "scale":
            return lazy_tensor(f"{base}.scale", ir.DataType.FLOAT, (out, blocks), shared.scales)
        shape = (out, blocks, block * bits // 8)
        return lazy_tensor(f"{base}.weight", ir.DataType.UINT8, shape, shared.values)

    def _shared(
        self, base: str, quantize: Callable[[], Quantized], *, readers: int = 2
    ) -> SharedTensor:
        return self._quantized.setdefault(base, SharedTensor(base, quantize, readers=readers))
