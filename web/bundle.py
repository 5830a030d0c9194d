"""A bundle's graph and weights as a browser runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from issun.runtime.manifest import DRAFT_NAME, SMOOTHING_NAME, Manifest, verify_hash, verify_hashes
from issun.runtime.weights.proto import parse_model
from issun.web.errors import WebError
from issun.web.graph import adapt, linears_in_blocks
from issun.web.weights import read_range, write_weights

if TYPE_CHECKING:
    from issun.web.unpacking import UnpackedWeights

_MAX_BYTES = 2**31  # of the weights: a browser's memory for WebAssembly ends at 4 GB


class WebBundle:
    """The graph for a browser, and its weights: the bundle's own file, or an unpacked one.

    `name` and `size`, in bytes, are those of the weights in the site, `source` is the bundle's
    file.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Adapt the bundle's graph; raises WebError if its weights do not fit into a browser."""
        self._folder, self._manifest = folder, manifest
        self.source = _weights(folder, manifest)
        self.name, self.size = self.source.name, manifest.files[self.source.name].size
        self._chunks: Callable[[], Iterator[bytes]] = partial(read_range, self.source, 0, self.size)
        model = parse_model((folder / manifest.graphs[manifest.kv_cache]).read_bytes())
        self.unpacked = bool(linears_in_blocks(model.graph))
        if self.unpacked:
            self.name = f"web.{self.name}"
            weights = _unpack(model.graph, self.source, self.name)
            self.size, self._chunks = weights.size, weights.chunks
        adapt(model.graph)
        self.graph: bytes = model.SerializeToString()
        if self.size > _MAX_BYTES:
            raise WebError(
                "{folder} cannot run in a browser: its weights have {size:,} bytes there, and at "
                "most {limit:,} fit into the memory of WebAssembly.",
                folder=folder,
                size=self.size,
                limit=_MAX_BYTES,
            )

    def write_weights(self, folder: Path, progress: Callable[[int], None]) -> dict[str, Any]:
        """Write the weights to `folder`, and return their description for the engine.

        Raises BundleError if the bundle's weights are not those that were exported.
        """
        info = self._manifest.files[self.source.name]
        if self.unpacked:  # nothing is made from a damaged file
            verify_hashes(self._folder, self._manifest)
        written = write_weights(self._chunks(), folder / self.name, progress)
        if not self.unpacked:
            verify_hash(self.source, info, written["sha256"])
        return written


def _weights(folder: Path, manifest: Manifest) -> Path:
    """The one file that the graph's tensors are in."""
    others = {*manifest.graphs.values(), manifest.tokens.file, SMOOTHING_NAME, DRAFT_NAME}
    found = sorted(name for name in manifest.files if name not in others)
    if len(found) != 1:
        raise WebError(
            "{folder} has {count} files of weights instead of one.", folder=folder, count=len(found)
        )
    return folder / found[0]


def _unpack(graph: Any, data: Path, name: str) -> UnpackedWeights:
    try:
        from issun.web.unpacking import UnpackedWeights  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise WebError(
            '{folder} has 4-bit weights, which must be unpacked: pip install "issun[export]" '
            "({module} is missing).",
            folder=data.parent,
            module=error.name,
        ) from error
    return UnpackedWeights(graph, data, name)
