"""The tensors of a bundle, each computed from the checkpoint at the moment it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.config import ACTIVATION_FLOOR, GPT2Config
from issun.export.errors import CheckpointError
from issun.export.fitted import FittedStore
from issun.export.gptq import hessian, quantize_gptq
from issun.export.once import Once, lazy
from issun.export.quantize import Quantized, quantize_blocks, quantize_columns
from issun.export.smoothing import Factors, smoothed
from issun.export.weights import Array, Tensor

Kind = Literal["float32", "int8", "int4"]  # of one linear
Precision = Literal["float32", "int8", "int4", "mixed"]
PRECISIONS: tuple[Kind, ...] = ("float32", "int8", "int4")
EMBEDDING_BLOCK = 128
LIFTED = "mlp.c_proj"  # the linear behind an activation function, which gives little below zero
LINEAR_BLOCK = 128  # fastest of the block sizes; 32 is a little more faithful and slower


class WeightSource(Protocol):
    """What the graph needs of its weights."""

    precision: Precision
    block: int

    def kind(self, base: str) -> Kind:
        """The precision of a linear."""

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear's weight as the graph uses it."""

    def kept_apart(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear that are multiplied in float32, as `.apart`; or none."""


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
        self._quantized: dict[str, Once] = {}
        self._fitted: dict[str, Callable[[], Quantized]] = {}
        self.store: FittedStore | None = None  # where fitted linears are kept, else in memory
        self._apart: dict[str, NDArray[np.int64]] = {}
        self.kinds: dict[str, Kind] = {}  # of each linear, where the precision is mixed

    def kind(self, base: str) -> Kind:
        """The precision of a linear."""
        return self.kinds.get(base, "int4") if self.precision == "mixed" else self.precision

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor with this name: a weight, or the `.scale` of a quantized one."""
        base, _, part = name.rpartition(".")
        weight = f"{base}.weight"
        exact = self.precision == "float32" or base == "wpe" or part == "bias"
        if exact or len(self.shape(weight)) == 1:
            return self._plain(name)
        if base in ("wte", "lm_head"):
            return self._blocks(base, part, self.shape(weight), 8, EMBEDDING_BLOCK)
        if self.kind(base) == "float32":
            return self._plain(name)
        if part in ("apart", "rest"):
            return self._channels(base, part)
        width, out = self.linear_shape(weight)
        if self.kind(base) == "int4":
            return self._blocks(base, part, (out, width), 4, self.block)
        return self._columns(base, part, (width, out))

    def stored(self, layer: int, part: str) -> Array:
        """A tensor of a block as it is now, its heads not padded."""
        return self._finite(f"h.{layer}.{part}")

    def embed(self, ids: NDArray[np.int64]) -> Array:
        """Token and position embeddings of windows of ids: (window, position, n_embd)."""
        table = self._tensors["wte.weight"]
        rows = {int(i): table.read(int(i), int(i) + 1)[0] for i in np.unique(ids)}
        tokens = np.stack([[rows[int(i)] for i in window] for window in ids])
        embedded: Array = tokens + self._finite("wpe.weight")[: ids.shape[1]]
        return embedded

    def smooth(self, layer: int, factors: Factors) -> None:
        """Put factors into the tensors of a block."""
        self._tensors.update(smoothed(self._tensors, layer, factors))

    def keep_apart(self, base: str, channels: NDArray[np.int64]) -> None:
        """Multiply these input channels of a linear in float32."""
        self._apart[base] = channels

    def kept_apart(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear that are multiplied in float32, as `.apart`; or none."""
        return None if self.kind(base) == "float32" else self._apart.get(base)

    @property
    def num_kept_apart(self) -> int:
        """Input channels of all linears together that are multiplied in float32."""
        return sum(len(c) for base in self._apart if (c := self.kept_apart(base)) is not None)

    def head_rows(self, count: int) -> Iterator[Array]:
        """The head's weight as stored, so many rows of the vocabulary at a time."""
        name = "wte.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        table = self._tensors[name]
        for start in range(0, table.shape[0], count):
            yield table.read(start, min(start + count, table.shape[0]))

    def forget(self) -> None:
        """Let all be quantized anew, after `kinds` have changed."""
        self._quantized.clear()

    def fit(self, base: str, inputs: Array) -> None:
        """Quantize an int4 linear by GPTQ on its inputs (rows, in); kept until it is written."""
        if self.store is not None:
            self._fitted[base] = self.store.keep(base, lambda: self._fit(base, inputs))
        else:
            made = self._fit(base, inputs)
            self._fitted[base] = lambda: made

    def _fit(self, base: str, inputs: Array) -> Quantized:
        weight = self._rest(base).T
        have, want = self.config.head_dim, self.config.kv_head_dim
        if inputs.shape[1] != weight.shape[1]:  # the heads of attention's output
            heads = inputs.reshape(len(inputs), self.config.n_head, have)
            inputs = np.pad(heads, [(0, 0), (0, 0), (0, want - have)]).reshape(len(inputs), -1)
        if base in self._apart:
            inputs = inputs.copy()
            inputs[:, self._apart[base]] = 0
        try:
            return quantize_gptq(weight.copy(), hessian(inputs), block=self.block)
        except np.linalg.LinAlgError as error:
            raise CheckpointError(
                "{name} cannot be fitted to this text: export without --gptq, or with more text.",
                name=f"{base}.weight",
            ) from error

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
        array = self._finite(name)
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

    def _finite(self, name: str) -> Array:
        array = self._tensors[name].read()
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise CheckpointError("{name} holds NaN or infinity.", name=name)
        return array

    def _rest(self, base: str) -> Array:
        """A linear's weight without the channels that are kept apart."""
        weight = self.read(f"{base}.weight")
        if base in self._apart:
            weight = weight.copy()
            weight[self._apart[base]] = 0
        return weight

    def _channels(self, base: str, part: str) -> ir.TensorProtocol:
        """The rows kept apart, or what multiplies them out of the input."""
        where, (width, out) = self._apart[base], self.shape(f"{base}.weight")
        if part == "apart":
            return lazy(
                f"{base}.apart",
                ir.DataType.FLOAT,
                (len(where), out),
                lambda: self.read(f"{base}.weight")[where],
            )
        rest = np.ones(width, np.float32)
        rest[where] = 0
        return ir.tensor(rest, name=f"{base}.rest")

    def _plain(self, name: str) -> ir.TensorProtocol:
        return lazy(name, ir.DataType.FLOAT, self.shape(name), lambda: self.read(name))

    def _columns(self, base: str, part: str, shape: tuple[int, int]) -> ir.TensorProtocol:
        """An int8 linear's values or scales, or the bias that takes the lift of its input back."""
        name, readers = f"{base}.{part}", 3 if base.endswith(LIFTED) else 2
        once = self._once(base, lambda: quantize_columns(self._rest(base)), readers=readers)
        if part == "scale":
            return lazy(name, ir.DataType.FLOAT, shape[1:], once.scales)
        if part == "lowered":

            def lower() -> Array:
                floor = np.float32(ACTIVATION_FLOOR)
                return self.read(f"{base}.bias") - floor * once.column_sums()

            return lazy(name, ir.DataType.FLOAT, shape[1:], lower)
        return lazy(name, ir.DataType.INT8, shape, once.values)

    def _blocks(
        self, base: str, part: str, shape: tuple[int, ...], bits: int, block: int
    ) -> ir.TensorProtocol:
        out, width = shape
        blocks = -(-width // block)

        def quantize() -> Quantized:
            if base in self._fitted:
                return self._fitted[base]()
            name = f"{base}.weight"
            if bits == 8:  # (out, in) as stored: the largest tensor, read a few rows at a time
                return quantize_blocks(
                    self._tensors[name].read, (out, width), bits=bits, block=block
                )
            transposed = self._rest(base).T
            return quantize_blocks(
                lambda start, stop: transposed[start:stop], (out, width), bits=bits, block=block
            )

        once = self._once(base, quantize)
        if part == "scale":
            return lazy(f"{base}.scale", ir.DataType.FLOAT, (out, blocks), once.scales)
        shape = (out, blocks, block * bits // 8)
        return lazy(f"{base}.weight", ir.DataType.UINT8, shape, once.values)

    def _once(self, base: str, quantize: Callable[[], Quantized], *, readers: int = 2) -> Once:
        return self._quantized.setdefault(base, Once(base, quantize, readers=readers))
