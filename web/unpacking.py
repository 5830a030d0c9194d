"""Linear layers in blocks of 4 or 8 bits as products of bytes.

WebAssembly has no kernel for MatMulNBits and would unpack all weights at every step. Here the
blocks become int8 weights with a scale for each output and group of inputs, and the inputs are
rounded in the same groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issun.export.quantize import Quantized, dequantize_blocks, quantize_columns
from issun.runtime.weights.split_head import Nodes, int_attribute, quantize_groups
from issun.web.graph import linears_in_blocks
from issun.web.weights import read_range

# Inputs that share a scale, at most. The KL divergence from ja-small's int4 bundle itself was
# 0.00021 with 128 and 0.00031 with 512 (2026-11-29); smaller groups mean more, shorter products.
GROUP = 512
_BIAS = 5  # index of an input of MatMulNBits
_FLOAT, _INT8 = 1, 3  # TensorProto.DataType
_EXTERNAL = 1  # TensorProto.DataLocation
_ALIGNMENT = 64  # bytes


class UnpackedWeights:
    """The data file of a graph whose linear layers are unpacked; `size` is in bytes."""

    def __init__(self, graph: Any, data: Path, name: str) -> None:
        """Change `graph`, whose weights are in `data`, so that it reads a file `name` instead."""
        self.size = 0
        self._data, self._name = data, name
        self._contents: list[tuple[int, Callable[[], Iterable[bytes]]]] = []  # by their offsets
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        linears = [_Linear.of(node, tensors, data) for node in linears_in_blocks(graph)]
        unpacked = {name for linear in linears for name in linear.node.input[1:3]}
        kept = [tensor for tensor in graph.initializer if tensor.name not in unpacked]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        for tensor in graph.initializer:
            if tensor.external_data:
                self._copy(tensor)
        for linear in linears:
            self._unpack(linear, graph)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content of the file."""
        end = 0
        for offset, content in self._contents:
            yield bytes(offset - end)
            end = offset
            for chunk in content():
                yield chunk
                end += len(chunk)

    def _append(self, length: int, content: Callable[[], Iterable[bytes]]) -> int:
        offset = -(-self.size // _ALIGNMENT) * _ALIGNMENT
        self.size = offset + length
        self._contents.append((offset, content))
        return offset

    def _copy(self, tensor: Any) -> None:
        begin, length = _place(tensor)
        offset = self._append(length, lambda: read_range(self._data, begin, length))
        self._locate(tensor, offset, length)

    def _locate(self, tensor: Any, offset: int, length: int) -> None:
        del tensor.external_data[:]
        tensor.data_location = _EXTERNAL
        for key, value in (("location", self._name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))

    def _unpack(self, linear: _Linear, graph: Any) -> None:
        """Store the groups of a linear layer as tensors, and replace its node."""
        name, groups, out = linear.node.input[1], linear.groups, linear.out
        of_weight, of_scale = linear.size * out, 4 * out  # bytes
        offset = self._append(groups * (of_weight + of_scale), linear.content)
        weights, scales = (
            [f"{name}.{part}_{group}" for group in range(groups)] for part in ("weight", "scale")
        )
        for tensor in weights:
            added = graph.initializer.add(name=tensor, data_type=_INT8, dims=[linear.size, out])
            self._locate(added, offset, of_weight)
            offset += of_weight
        for tensor in scales:
            added = graph.initializer.add(name=tensor, data_type=_FLOAT, dims=[out])
            self._locate(added, offset, of_scale)
            offset += of_scale
        graph.node.remove(linear.node)
        _add_products(Nodes(graph, name), linear, list(zip(weights, scales, strict=True)))


def _add_products(new: Nodes, linear: _Linear, tensors: list[tuple[str, str]]) -> None:
    """Compute the linear layer by a product of bytes for each group of inputs."""
    node, groups, size = linear.node, linear.groups, linear.size
    x = new.op("Flatten", [node.input[0]], axis=-1)  # (rows, width)
    if padding := groups * size - linear.width:
        x = new.op("Pad", [x, new.constant("padding", np.array([0, 0, 0, padding]))])
    x = new.op("Reshape", [x, new.constant("shape", np.array([0, groups, size]))])
    quantized, peak = quantize_groups(new, x)
    step, zero = new.constant("step", np.float32(1 / 127)), new.constant("zero", np.uint8(128))
    products = []
    for group, (weight, scale) in enumerate(tensors):
        index = new.constant(f"group.{group}", np.int64(group))
        part, peaks = (new.op("Gather", [of, index], axis=1) for of in (quantized, peak))
        inputs = [part, weight, step, scale, zero]
        product = new.op("MatMulIntegerToFloat", inputs, domain="com.microsoft")
        products.append(new.op("Mul", [product, peaks]))
    total = new.op("Sum", products)
    if len(node.input) > _BIAS:
        total = new.op("Add", [total, node.input[_BIAS]])
    lead = new.op("Shape", [node.input[0]], end=-1)  # batch and sequence, or rows
    shape = new.op("Concat", [lead, new.constant("out", np.array([linear.out]))], axis=0)
    new.op("Reshape", [total, shape], output=node.output[0])


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer in blocks, as MatMulNBits has it: (out, blocks, bytes of a block)."""

    node: Any
    weight: NDArray[np.uint8]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, node: Any, tensors: dict[str, Any], data: Path) -> _Linear:
        weight, scale = (tensors[name] for name in node.input[1:3])
        return cls(node, _array(weight, np.dtype("u1"), data), _array(scale, np.dtype("<f4"), data))

    @property
    def width(self) -> int:
        return int_attribute(self.node, "K")

    @property
    def out(self) -> int:
        return int_attribute(self.node, "N")

    @property
    def groups(self) -> int:
        return -(-self.width // GROUP)

    @property
    def size(self) -> int:
        """Inputs of a group; the last group is padded."""
        return -(-self.width // self.groups)

    def content(self) -> Iterator[bytes]:
        """Yield the bytes of all groups, (group, input, output), and then their scales."""
        bits, width = int_attribute(self.node, "bits"), self.width
        blocks = Quantized(self.weight, self.scale)
        weight = dequantize_blocks(blocks, bits=bits, width=width).T
        weight = np.pad(weight, [(0, self.groups * self.size - width), (0, 0)])
        parts = [quantize_columns(part) for part in np.split(weight, self.groups)]
        yield from (part.values.tobytes() for part in parts)
        yield from (part.scales.astype("<f4").tobytes() for part in parts)


def _array(tensor: Any, dtype: np.dtype[Any], data: Path) -> NDArray[Any]:
    """The values of a tensor, which are mapped if they are in the data file."""
    if not tensor.external_data:
        return np.frombuffer(tensor.raw_data, dtype).reshape(tensor.dims)
    offset, length = _place(tensor)
    mapped: NDArray[Any] = np.memmap(data, dtype, "r", offset, (length // dtype.itemsize,))
    return mapped.reshape(tensor.dims)


def _place(tensor: Any) -> tuple[int, int]:
    """The offset and the length of a tensor in the data file."""
    fields = {field.key: field.value for field in tensor.external_data}
    return int(fields["offset"]), int(fields["length"])
