"""Weight packing: weights in the CPU kernels' layout, in a file that later loads map.

ONNX Runtime packs weights for its kernels whenever it opens a graph. If the graph references packed
weights in a file, together with their hash, ONNX Runtime still packs, compares the hashes, maps the
file and frees its own copy. Weights that were packed on another CPU or by another version, or that
are damaged, are therefore never used. The original weights stay in the bundle, which each load
reads.
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
from issun.runtime.weights.low_rank import LowRank
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.session import adapt_to_cpu, create_session, make_options, trim_heap

_ALIGNMENT = 4096  # a page: mappings start at page boundaries
_CHUNK = 1 << 16  # bytes: fits a CPU cache, which makes reading and comparing four times as fast
_PREPACKED = "prepacked_"  # ONNX Runtime's prefix for packed weights in a tensor's external data


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file of packed weights.

    ONNX Runtime finds packed weights by their hashes in the file of any tensor that it loads. One
    small tensor, the `carrier`, is therefore stored at the start of that file and lists all of
    them, each as `kernel+hash|offset;length;padding|…`.
    """

    carrier: str
    weights: tuple[str, ...]
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
    _open(model, graph, target, None, options)
    trim_heap()  # the session has left free memory of about the size of the weights
    with target.open("wb") as file, data.open("rb", 0) as source:
        writer = _AlignedWriter(file)
        packed = _copy_packed(parse_model(saved.read_bytes()).graph, external, source, writer)
        file.flush()
        os.fsync(file.fileno())
    saved.unlink()
    data.unlink()
    return Packed(**packed, size=writer.end, sha256=writer.digest.hexdigest())


def open_packed(
    graph: Path,
    packed: Packed,
    file: Path,
    *,
    threads: int | None = None,
    low_rank: LowRank | None = None,
) -> ort.InferenceSession:
    """Return a session over `graph` that maps its packed weights from `file`.

    `low_rank` adds the products of adapters. Raises BundleError if `file` does not hold the
    weights, and ValueError if the two files share no parent folder or if the graph has data
    outside the bundle.
    """
    model = parse_model(graph.read_bytes())
    for tensor in model.graph.initializer:
        if tensor.name == packed.carrier:
            _verify_carrier(tensor, graph.parent, file)
            for number, value in enumerate(packed.weights):
                tensor.external_data.add(key=f"{_PREPACKED}{number}", value=value)
    session = _open(model, graph, file, packed.carrier, make_options(threads), low_rank=low_rank)
    trim_heap()
    return session


def _open(
    model: Any,
    graph: Path,
    file: Path,
    carrier: str | None,
    options: ort.SessionOptions,
    *,
    low_rank: LowRank | None = None,
) -> ort.InferenceSession:
    """Return a session over `model` that reads the tensor `carrier` from `file`."""
    base = Path(os.path.commonpath([graph.parent, file.parent]))
    adapt_to_cpu(model.graph, options)
    for tensor in model.graph.initializer:
        fields = {field.key: field for field in tensor.external_data}
        if not fields:
            continue
        path = graph.parent / fields["location"].value
        if path.parent != graph.parent or path.is_symlink():  # `base` may be a parent folder
            raise ValueError(f"{graph} has data outside its folder")
        if tensor.name == carrier:
            path, fields["offset"].value = file, "0"
        fields["location"].value = path.relative_to(base).as_posix()
    _pack_largest_first(model.graph)
    if low_rank is not None:
        low_rank.add_to(model, options)
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
    for path in places:
        node = graph.node.pop(path)
        graph.node.insert(0, node)


def _size(tensor: Any) -> int:
    return next(int(field.value) for field in tensor.external_data if field.key == "length")


def _verify_carrier(tensor: Any, folder: Path, file: Path) -> None:
    """Compare the only tensor in `file` that ONNX Runtime would use unchecked."""
    fields = {field.key: field.value for field in tensor.external_data}
    with (folder / fields["location"]).open("rb", 0) as source, file.open("rb", 0) as stored:
        for chunk in _read_range(source, int(fields["offset"]), int(fields["length"])):
            if stored.read(len(chunk)) != chunk:
                raise BundleError("{path} is damaged.", path=file)


def _read_range(source: IO[bytes], offset: int, length: int) -> Iterator[bytes]:
    source.seek(offset)
    while length:
        chunk = source.read(min(length, _CHUNK))
        if not chunk:
            raise OSError(f"{length} bytes are missing")
        yield chunk
        length -= len(chunk)


def _copy_packed(
    graph: Any, external: set[str], source: IO[bytes], writer: _AlignedWriter
) -> dict[str, Any]:
    """Copy one small tensor and all packed weights of a saved graph; return fields of Packed."""
    weights, unpacked = [], []
    for tensor in graph.initializer:
        fields = {field.key: field.value for field in tensor.external_data}
        forms = [value for key, value in fields.items() if key.startswith(_PREPACKED)]
        if fields and not forms and tensor.name in external:
            unpacked.append((int(fields["length"]), int(fields["offset"]), tensor.name))
        weights += forms
    length, offset, carrier = min(unpacked)
    writer(_read_range(source, offset, length))
    relocated = []
    for weight in weights:
        name, *blobs = weight.split("|")
        for blob in blobs:
            offset, length, padding = map(int, blob.split(";"))
            name += f"|{writer(_read_range(source, offset, length))};{length};{padding}"
        relocated.append(name)
    return {"carrier": carrier, "weights": tuple(relocated)}


class _AlignedWriter:
    """Appends parts of other files to a file, each aligned to a page."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.end = 0
        self.digest = hashlib.sha256()

    def __call__(self, chunks: Iterable[bytes]) -> int:
        """Append `chunks` and return their offset."""
        self._write(b"\0" * (-self.end % _ALIGNMENT))
        start = self.end
        for chunk in chunks:
            self._write(chunk)
        return start

    def _write(self, chunk: bytes) -> None:
        self._target.write(chunk)
        self.digest.update(chunk)
        self.end += len(chunk)
