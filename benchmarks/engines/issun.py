"""issun itself: bundles exported from the checkpoint, or one that a user names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from issun.benchmarks.engines.greedy import Greedy
from issun.benchmarks.turn import measure_turn
from issun.runtime import Model
from issun.runtime.kv_cache import Cache
from issun.runtime.manifest import KVCacheType, read_manifest
from issun.runtime.weight_cache import CACHE_VARIABLE

if TYPE_CHECKING:
    from issun.export.lazy import Kind

_HOW = "as `issun chat` opens it: weights packed at the first load, then mapped; chunks of 128."


class Bundle(Greedy):
    """A bundle with one of its KV caches, driven through the runtime's own decoder."""

    label = "bundle"
    packages = ("onnxruntime",)
    settings = _HOW
    model: Model
    _cache: Cache

    def convert(self) -> None:
        """A bundle is there already."""

    def load(self, threads: int) -> None:
        """Load the bundle in `folder`."""
        kind = cast("KVCacheType | None", self.kv_cache)  # None: the bundle's default
        self.model = Model.load(self.folder, threads=threads, kv_cache=kind, trust=self.trust)
        self._cache = self.model.new_cache()

    def reset(self) -> None:
        """Rewind the cache to nothing."""
        self._cache.rewind(0)

    def next_token(self, ids: Sequence[int]) -> int:
        """A prompt in chunks, or a single step."""
        return int(self.model.decoder.prefill(self._cache, ids).argmax())

    def weight_bytes(self) -> int:
        """Of the bundle's own files: those packed beside it stand for them."""
        return read_manifest(self.folder).size

    def reads(self) -> tuple[int, int]:
        """All weights but the positions and an untied embedding; keys and values of every layer."""
        manifest = self.model.manifest
        shape = manifest.architecture
        floats = shape.n_positions * shape.n_embd
        total = sum(info.size for name, info in manifest.files.items() if name.endswith(".data"))
        if not shape.tie_word_embeddings:
            # The embedding is as large as the head, and one row of it is read.
            total -= self._head_bytes()
        width = 1 if self.model.decoder.kv_cache == "int8" else 4
        kv_bytes = 2 * shape.n_layer * shape.n_head * shape.kv_head_dim * width
        return total - 4 * floats, kv_bytes

    def _head_bytes(self) -> int:
        shape, embedding = self.model.manifest.architecture, self.model.manifest.precision.embedding
        values = shape.vocab_size * shape.n_embd
        return 4 * values if embedding == "float32" else values + 4 * values // 128

    def bundle_id(self) -> str:
        """The bundle's id, which tells two of them apart."""
        return str(self.model.manifest.bundle_id)

    def turn(self) -> dict[str, float]:
        """The first token of a turn with and without what the cache kept."""
        return measure_turn(self.model)


class _Exported(Bundle):
    """A bundle exported from the checkpoint."""

    precision: ClassVar[Kind]
    exported_kv_cache: ClassVar[KVCacheType] = "float32"

    def convert(self) -> None:
        """Export, as `issun export` does."""
        from issun.export import ExportOptions, export  # noqa: PLC0415

        options = ExportOptions(
            precision=self.precision, kv_cache=self.exported_kv_cache, force=True
        )
        export(self.checkpoint, self.folder, options)

    def load(self, threads: int) -> None:
        """Load, with packed weights beside the bundle: they count, and go with it."""
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
    """What a user's bundle is called in tables."""
    return folder.name + (f", {kv_cache} KV" if kv_cache else "")
