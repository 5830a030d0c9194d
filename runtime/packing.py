"""Weights packed for this CPU, kept in a file that later loads map instead of filling memory.

ONNX Runtime packs weights for its kernels whenever it opens a graph. Where the graph names packed
weights in a file, with the hash that its own come to, it compares both, maps the file and gives its
own memory back: what another CPU or another version packed, or what is damaged, is never computed
with. The originals stay in the bundle, where each load reads them.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import IO, Any

import msgspec
import onnxruntime as ort

from issun.runtime.errors import BundleError
from issun.runtime.session import create_session, make_options

_ALIGNMENT = 4096  # a page: what is mapped begins where one does
_CHUNK = 1 << 22
_PACKED = "prepacked_"  # ONNX Runtime's name of a packed form among a tensor's fields


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of packed weights holds.

    ONNX Runtime looks for packed weights by their hashes, in the file of any tensor that it loads.
    So one small tensor, the `carrier`, is kept in that file at offset 0 and names all of them, each
    as `kernel+hash|offset;length;padding|…`.
    """

    carrier: str
    weights: tuple[str, ...]
    size: int
    sha256: str


def pack(graph: Path, target: Path, *, threads: int | None = None) -> Packed:
    """Write the packed weights of `graph` to `target`.

    What ONNX Runtime saves on the way holds the originals too, and lies beside `target` until the
    end. Raises OSError, and BundleError for all that goes wrong in ONNX Runtime.
    """
    saved, data = target.with_name("saved.onnx"), target.with_name("saved.data")
    options = make_options(threads)
    options.optimized_model_filepath = str(saved)
    for name, value in {
        "session.save_external_prepacked_constant_initializers": "1",
        "session.optimized_model_external_initializers_file_name": data.name,
        "session.optimized_model_external_initializers_min_size_in_bytes": "16",
    }.items():
        options.add_session_config_entry(name, value)
    create_session(graph, options)
    external = {t.name for t in _parse(graph.read_bytes()).graph.initializer if t.external_data}
    tensors = _parse(saved.read_bytes()).graph.initializer
    with data.open("rb", 0) as source, target.open("wb") as file:
        packed = _copy_packed(tensors, external, _Copy(source, file))
        file.flush()
        os.fsync(file.fileno())
    saved.unlink()
    data.unlink()
    return packed


def open_packed(
    graph: Path, packed: Packed, file: Path, *, threads: int | None = None
) -> ort.InferenceSession:
    """A session over `graph` that maps its packed weights from `file`.

    Raises BundleError where `file` does not hold them; ValueError where no folder holds both files,
    or for data outside the bundle.
    """
    base = Path(os.path.commonpath([graph.parent, file.parent]))
    model = _parse(graph.read_bytes())
    for tensor in model.graph.initializer:
        fields = {field.key: field for field in tensor.external_data}
        if not fields:
            continue
        place = graph.parent / fields["location"].value
        if place.parent != graph.parent or place.is_symlink():  # else `base` would allow it
            raise ValueError(f"{graph} has data outside its folder")
        if tensor.name == packed.carrier:
            _check_carrier(file, place, int(fields["offset"].value), int(fields["length"].value))
            place, fields["offset"].value = file, "0"
            for number, value in enumerate(packed.weights):
                tensor.external_data.add(key=f"{_PACKED}{number}", value=value)
        fields["location"].value = place.relative_to(base).as_posix()
    _pack_largest_first(model.graph)
    options = make_options(threads)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(base)
    )
    return create_session(graph, options, content=model.SerializeToString())


def _pack_largest_first(graph: Any) -> None:
    """Move the head to the front, since weights are packed in the order of the nodes.

    Original, packed and saved form of a weight are in memory at once, and the head is by far the
    largest: at the end, beside all others, it would set the peak. ONNX Runtime sorts for execution.
    """
    packed = {node.input[1] for node in graph.node if len(node.input) > 1}
    sizes = {t.name: _size(t) for t in graph.initializer if t.name in packed and t.external_data}
    largest = max(sizes, key=sizes.__getitem__, default=None)
    places = [i for i, node in enumerate(graph.node) if largest in node.input[1:2]]
    for place in places:
        node = graph.node.pop(place)
        graph.node.insert(0, node)


def _size(tensor: Any) -> int:
    return next(int(field.value) for field in tensor.external_data if field.key == "length")


def _check_carrier(file: Path, original: Path, offset: int, length: int) -> None:
    """ONNX Runtime compares packed weights; this one tensor it would take as it is."""
    with file.open("rb") as kept, original.open("rb") as source:
        source.seek(offset)
        if kept.read(length) != source.read(length):
            raise BundleError("{path} is damaged.", path=file)


def _copy_packed(tensors: Any, external: set[str], copy: _Copy) -> Packed:
    weights, plain = [], []
    for tensor in tensors:
        fields = {field.key: field.value for field in tensor.external_data}
        forms = [value for key, value in fields.items() if key.startswith(_PACKED)]
        if fields and not forms and tensor.name in external:
            plain.append((int(fields["length"]), int(fields["offset"]), tensor.name))
        weights += forms
    length, offset, carrier = min(plain)
    copy(offset, length)
    moved = []
    for weight in weights:
        name, *blobs = weight.split("|")
        for blob in blobs:
            offset, length, padding = map(int, blob.split(";"))
            name += f"|{copy(offset, length)};{length};{padding}"
        moved.append(name)
    return Packed(
        carrier=carrier, weights=tuple(moved), size=copy.end, sha256=copy.digest.hexdigest()
    )


class _Copy:
    """Lays parts of a file one behind the other in another, each at a page."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self._source, self._target = source, target
        self.end = 0
        self.digest = hashlib.sha256()

    def __call__(self, offset: int, length: int) -> int:
        """Copy `length` bytes from `offset` on; gives where they lie now."""
        self._write(b"\0" * (-self.end % _ALIGNMENT))
        start = self.end
        self._source.seek(offset)
        while length:
            part = self._source.read(min(length, _CHUNK))
            if not part:
                raise OSError(f"{length} bytes are missing")
            self._write(part)
            length -= len(part)
        return start

    def _write(self, part: bytes) -> None:
        self._target.write(part)
        self.digest.update(part)
        self.end += len(part)


def _parse(content: bytes) -> Any:
    return _model_type().FromString(content)


@cache
def _model_type() -> Any:
    """The part of onnx.proto that is needed here; protobuf keeps the fields that it is not told of.

    Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415

    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="issun.proto", package="issun")
    # Message -> (field, its number, its message; "" for strings, None for one string)
    schema: dict[str, list[tuple[str, int, str | None]]] = {
        "Entry": [("key", 1, None), ("value", 2, None)],
        "Tensor": [("name", 8, None), ("external_data", 13, "Entry")],
        "Node": [("input", 1, "")],
        "Graph": [("node", 1, "Node"), ("initializer", 5, "Tensor")],
        "Model": [("graph", 7, "Graph")],
    }
    for name, described in schema.items():
        message = file.message_type.add(name=name)
        for field, number, kind in described:
            one = kind in (None, "Graph")  # not repeated
            message.field.add(
                name=field,
                number=number,
                label=fields.LABEL_OPTIONAL if one else fields.LABEL_REPEATED,
                type=fields.TYPE_MESSAGE if kind else fields.TYPE_STRING,
                type_name=f".issun.{kind}" if kind else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("issun.Model"))
