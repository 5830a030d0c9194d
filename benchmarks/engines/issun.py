"""issun: bundles exported from the checkpoint, or a bundle that a user names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.chat_turn import measure_chat_turn
from issun.benchmarks.engines.greedy import GreedyEngine
from issun.benchmarks.tensors import stored_tensors
from issun.runtime import Model
from issun.runtime.decoding.decoder import PREFILL_CHUNK
from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.manifest import DRAFT_NAME, SMOOTHING_NAME, KVCacheType, read_manifest
from issun.runtime.weights.weight_cache import CACHE_VARIABLE

if TYPE_CHECKING:
    from issun.export.kinds import Uniform

_HOW = "loaded as by `issun chat`: weights packed at the first load, then mapped; chunks of 128."


class Bundle(GreedyEngine):
    """A bundle with one of its KV cache types, run by issun's decoder."""

    label = "bundle"
    packages = ("onnxruntime",)
    chunk = PREFILL_CHUNK
    settings = _HOW
    model: Model
    _cache: Cache

    def convert(self) -> None:
        """Nothing to do: the bundle exists."""

    def load(self, threads: int) -> None:
        """Load the bundle in `folder`."""
        kind = cast("KVCacheType | None", self.kv_cache)  # None: the bundle's default
        self.model = Model.load(self.folder, threads=threads, kv_cache=kind, trust=self.trust)
        self._cache = self.model.new_cache()
        self.kv_type = self.model.decoder.kv_cache

    def reset(self) -> None:
        """Rewind the cache to the start."""
        self._cache.rewind(0)

    def next_token(self, ids: Sequence[int]) -> int:
        """Prefill in chunks, or a single decode step."""
        return int(self.model.decoder.prefill(self._cache, ids).argmax())

    def model_files(self) -> list[Path]:
        """The graphs and their weights."""
        manifest = read_manifest(self.folder)
        others = {manifest.tokens.file, SMOOTHING_NAME, DRAFT_NAME}
        return [self.folder / name for name in manifest.files if name not in others]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """As `Model.score`."""
        return self.model.score(ids)

    def weight_bytes(self) -> int:
        """The size of the bundle's files; packed weights replace them in memory."""
        return read_manifest(self.folder).size

    def bytes_read(self) -> tuple[int, int]:
        """All weights except tables of which single rows are read; keys and values of all layers.

        An untied embedding is such a table, as are positions and rotary angles.
        """
        manifest = self.model.manifest
        shape, kind = manifest.architecture, self.model.decoder.kv_cache
        tensors = stored_tensors(Path(self.folder) / manifest.graphs[kind]).values()
        width = 1 if kind == "int8" else 4
        kv_bytes = 2 * shape.n_layer * shape.n_kv_head * shape.kv_head_dim * width
        return sum(t.nbytes for t in tensors if not t.is_table), kv_bytes

    def bundle_id(self) -> str:
        """The bundle's id."""
        return read_manifest(self.folder).bundle_id

    def chat_turn(self) -> dict[str, float]:
        """Seconds to the first token of a chat turn, with and without prompt reuse."""
        return measure_chat_turn(self.model)


class _Exported(Bundle):
    """A bundle exported from the checkpoint."""

    precision: ClassVar[Uniform]
    exported_kv_cache: ClassVar[KVCacheType] = "float32"

    def convert(self) -> None:
        """Export as `issun export` does."""
        from issun.export import ExportOptions, export  # noqa: PLC0415

        options = ExportOptions(
            precision=self.precision, kv_cache=self.exported_kv_cache, force=True
        )
        export(self.checkpoint, self.folder, options)

    def load(self, threads: int) -> None:
        """Load with packed weights inside the bundle's folder, so that they count as disk space."""
        os.environ[CACHE_VARIABLE] = str(self.folder / "packed")
        super().load(threads)


class Float32(_Exported):
    """Float32, the reference."""

    label, precision = "issun float32", "float32"
    settings = f"`issun export --precision float32`; {_HOW}"


class Int8(_Exported):
    """int8 with a float32 KV cache, issun's default."""

    label, precision = "issun int8", "int8"
    settings = f"`issun export` (int8, row-wise activations, float32 KV cache); {_HOW}"


class Int8KV8(_Exported):
    """int8 with an int8 KV cache."""

    label, precision, exported_kv_cache = "issun int8, int8 KV", "int8", "int8"
    settings = f"`issun export --kv-cache int8`; {_HOW}"


class Int4(_Exported):
    """int4 with a float32 KV cache."""

    label, precision = "issun int4", "int4"
    settings = f"`issun export --precision int4` (blocks of 128); {_HOW}"


class Int4KV8(_Exported):
    """int4 with an int8 KV cache."""

    label, precision, exported_kv_cache = "issun int4, int8 KV", "int4", "int8"
    settings = f"`issun export --precision int4 --kv-cache int8` (blocks of 128); {_HOW}"


def bundle_label(folder: Path, kv_cache: str | None) -> str:
    """The label of a user's bundle in tables."""
    return folder.name + (f", {kv_cache} KV" if kv_cache else "")
