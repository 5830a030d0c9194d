"""Weight packing: weights in the CPU kernels' layout, in a file that later loads map.

ONNX Runtime packs weights for its kernels whenever it opens a graph. If the graph references packed
weights in a file, together with their hash, ONNX Runtime still packs, compares the hashes, maps the
file and frees its own copy. Weights that were packed on another CPU or by another version, or that
are damaged, are therefore never used. The original weights stay in the bundle, which each load
reads; only int8 weights that the CPU reads as unsigned bytes are stored next to the packed ones
(see `issun.runtime.unsigned`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import onnxruntime as ort

from issun.runtime.errors import BundleError
from issun.runtime.proto import parse_model
from issun.runtime.session import create_session, integer_matmul_saturates, make_options
from issun.runtime.unsigned import flip, read_unsigned, signed_weights

_ALIGNMENT = 4096  # a page: mappings start at page boundaries
_CHUNK = 1 << 16  # bytes: fits a CPU cache, which makes reading and comparing four times as fast
_PACKED = "prepacked_"  # ONNX Runtime's prefix for packed weights in a tensor's external data


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file of packed weights.

    ONNX Runtime finds packed weights by their hashes in the file of any tensor that it loads. One
    small tensor, the `carrier`, is therefore stored in that file and lists all of them, each as
    `kernel+hash|offset;length;padding|…`. `unsigned` has the offsets of weights that were
    converted to unsigned bytes for this CPU.
    """

    carrier: str
    carrier_offset: int
    weights: tuple[str, ...]
    unsigned: dict[str, int]
    size: int
    sha256: str


def pack(graph: Path, target: Path, *, threads: int | None = None) -> Packed:
    """Write the packed weights of `graph` to `target`.

    Needs temporary space next to `target` for originals and packed weights. Raises OSError,
    BundleError for any error of ONNX Runtime, and ValueError if the two files share no parent
    folder or if the graph has data outside the bundle.
    """
    saved, data = target.with_name("saved.onnx"), target.with_name("saved.data")
    model = parse_model(graph.read_bytes())
    external = {t.name for t in model.graph.initializer if t.external_data}
    options = make_options(threads)
    options.optimized_model_filepath = str(saved)
    for name, value in {
        "session.save_external_prepacked_constant_initializers": "1",
        "session.optimized_model_external_initializers_file_name": data.name,
        "session.optimized_model_external_initializers_min_size_in_bytes": "16",
    }.items():
        options.add_session_config_entry(name, value)
    with target.open("wb") as file:
        copy = _Copy(file)
        unsigned = _copy_unsigned(model.graph, graph.parent, copy)
        file.flush()
        _open(model, graph, target, unsigned, options)
        with data.open("rb", 0) as source:
            packed = _copy_packed(parse_model(saved.read_bytes()).graph, external, source, copy)
        file.flush()
        os.fsync(file.fileno())
    saved.unlink()
    data.unlink()
    return Packed(**packed, unsigned=unsigned, size=copy.end, sha256=copy.digest.hexdigest())


def open_packed(
    graph: Path, packed: Packed, file: Path, *, threads: int | None = None
) -> ort.InferenceSession:
    """Return a session over `graph` that maps its packed weights from `file`.

    Raises BundleError if `file` does not hold them, and ValueError if the two files share no parent
    folder or if the graph has data outside the bundle.
    """
    model = parse_model(graph.read_bytes())
    _check(model.graph, graph.parent, packed, file)
    for tensor in model.graph.initializer:
        if tensor.name == packed.carrier:
            for number, value in enumerate(packed.weights):
                tensor.external_data.add(key=f"{_PACKED}{number}", value=value)
    moved = packed.unsigned | {packed.carrier: packed.carrier_offset}
    return _open(model, graph, file, moved, make_options(threads))


def _open(
    model: Any, graph: Path, file: Path, moved: dict[str, int], options: ort.SessionOptions
) -> ort.InferenceSession:
    """Return a session over `model` that reads the tensors in `moved` from `file`."""
    base = Path(os.path.commonpath([graph.parent, file.parent]))
    if integer_matmul_saturates():
        read_unsigned(model.graph)
    for tensor in model.graph.initializer:
        fields = {field.key: field for field in tensor.external_data}
        if not fields:
            continue
        place = graph.parent / fields["location"].value
        if place.parent != graph.parent or place.is_symlink():  # `base` may be a parent folder
            raise ValueError(f"{graph} has data outside its folder")
        if tensor.name in moved:
            place, fields["offset"].value = file, str(moved[tensor.name])
        fields["location"].value = place.relative_to(base).as_posix()
    _pack_largest_first(model.graph)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(base)
    )
    return create_session(graph, options, content=model.SerializeToString())


def _pack_largest_first(graph: Any) -> None:
    """Move the head to the front, since weights are packed in the order of the nodes.

    The original, packed and saved forms of a weight are in memory at once, and the head is by far
    the largest: as the last one, next to all others, it would set the peak. The order of nodes does
    not matter for execution, since ONNX Runtime sorts them.
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


def _check(graph: Any, folder: Path, packed: Packed, file: Path) -> None:
    """Compare everything in `file` that ONNX Runtime would use unchecked."""
    if set(packed.unsigned) != {tensor.name for tensor in _to_flip(graph)}:
        raise BundleError("{path} is damaged.", path=file)
    with file.open("rb", 0) as kept:
        for tensor in graph.initializer:
            name = tensor.name
            if name in packed.unsigned:
                kept.seek(packed.unsigned[name])
            elif name == packed.carrier:
                kept.seek(packed.carrier_offset)
            else:
                continue
            for part in _parts(tensor, folder):
                if kept.read(len(part)) != (flip(part) if name in packed.unsigned else part):
                    raise BundleError("{path} is damaged.", path=file)


def _parts(tensor: Any, folder: Path) -> Iterator[bytes]:
    """Yield the content of a tensor's data in chunks."""
    fields = {field.key: field.value for field in tensor.external_data}
    with (folder / fields["location"]).open("rb", 0) as source:
        yield from _read(source, int(fields["offset"]), int(fields["length"]))


def _read(source: IO[bytes], offset: int, length: int) -> Iterator[bytes]:
    source.seek(offset)
    while length:
        part = source.read(min(length, _CHUNK))
        if not part:
            raise OSError(f"{length} bytes are missing")
        yield part
        length -= len(part)


def _copy_unsigned(graph: Any, folder: Path, copy: _Copy) -> dict[str, int]:
    """Copy the weights to be read as unsigned bytes; return their offsets by name."""
    return {
        tensor.name: copy(flip(part) for part in _parts(tensor, folder))
        for tensor in _to_flip(graph)
    }


def _to_flip(graph: Any) -> list[Any]:
    """Return the weights that this CPU reads as unsigned bytes."""
    return signed_weights(graph) if integer_matmul_saturates() else []


def _copy_packed(graph: Any, external: set[str], source: IO[bytes], copy: _Copy) -> dict[str, Any]:
    """Copy one small tensor and all packed weights of a saved graph; return fields of Packed."""
    weights, plain = [], []
    for tensor in graph.initializer:
        fields = {field.key: field.value for field in tensor.external_data}
        forms = [value for key, value in fields.items() if key.startswith(_PACKED)]
        if fields and not forms and tensor.name in external:
            plain.append((int(fields["length"]), int(fields["offset"]), tensor.name))
        weights += forms
    length, offset, carrier = min(plain)
    carrier_offset = copy(_read(source, offset, length))
    moved = []
    for weight in weights:
        name, *blobs = weight.split("|")
        for blob in blobs:
            offset, length, padding = map(int, blob.split(";"))
            name += f"|{copy(_read(source, offset, length))};{length};{padding}"
        moved.append(name)
    return {"carrier": carrier, "carrier_offset": carrier_offset, "weights": tuple(moved)}


class _Copy:
    """Appends parts of other files to a file, each aligned to a page."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.end = 0
        self.digest = hashlib.sha256()

    def __call__(self, parts: Iterable[bytes]) -> int:
        """Append `parts` and return their offset."""
        self._write(b"\0" * (-self.end % _ALIGNMENT))
        start = self.end
        for part in parts:
            self._write(part)
        return start

    def _write(self, part: bytes) -> None:
        self._target.write(part)
        self.digest.update(part)
        self.end += len(part)
