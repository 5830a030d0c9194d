"""Opens a bundle's graph and weights as a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from issun.runtime.adapter import OpenAdapter
from issun.runtime.checks import check_graph
from issun.runtime.decoding.adapters import Adapters
from issun.runtime.decoding.decoder import Decoder, IssunDecoder
from issun.runtime.decoding.optimum import OptimumDecoder
from issun.runtime.decoding.row_cost import row_cost
from issun.runtime.errors import BundleError, Notify, check_choice
from issun.runtime.manifest import KV_CACHE_TYPES, KVCacheType, Manifest
from issun.runtime.weights.low_rank import LowRank
from issun.runtime.weights.session import rounds_activations, trim_heap
from issun.runtime.weights.trust import check_trusted
from issun.runtime.weights.weight_cache import WeightCache, open_weights


def choose_kv_cache(folder: Path, manifest: Manifest, kv_cache: KVCacheType | None) -> KVCacheType:
    """Return `kv_cache`, or the default; raises BundleError if the bundle has no such graph."""
    kind = kv_cache or manifest.kv_cache
    check_choice("kv_cache", kind, KV_CACHE_TYPES)
    if kind not in manifest.graphs:
        raise BundleError(
            "{folder} has no graph for the KV cache type {kind}; it has {known}. "
            "Export it again with `--kv-cache {kind}`.",
            folder=folder,
            kind=kind,
            known=", ".join(manifest.graphs),
        )
    return kind


def open_decoder(
    folder: Path,
    manifest: Manifest,
    kv_cache: KVCacheType | None,
    cache: WeightCache | None,
    *,
    threads: int | None,
    trust: bool,
    notify: Notify,
    adapters: Sequence[OpenAdapter] = (),
) -> tuple[Decoder, Path | None]:
    """Return the decoder of the bundle in `folder`, with its graph for `kv_cache` or the default.

    A second session applies `adapters`, and maps the same packed weights. Also returns the folder
    of the entry in `cache` whose weights they map, if any. Raises BundleError if there is no such
    graph, if it is damaged, or, without `trust`, if issun cannot have exported it.
    """
    graph = folder / manifest.graphs[choose_kv_cache(folder, manifest, kv_cache)]
    check_trusted(graph, manifest, trust=trust)
    if manifest.precision.name == "int4" and not rounds_activations():
        notify(
            "This CPU has no fast kernels for 4-bit weights: an int8 bundle answers faster here."
        )
    session, pages, entry = open_weights(graph, manifest, cache, threads=threads, notify=notify)
    check_graph(folder, manifest, session)
    make_decoder = OptimumDecoder if manifest.graph == "optimum" else IssunDecoder
    decoder = make_decoder(session, manifest.architecture)
    decoder.pages = pages
    if isinstance(decoder, IssunDecoder):
        decoder.row_cost = row_cost(decoder, manifest.precision.name, entry)
        if adapters:
            low_rank = LowRank([adapter.file.read() for adapter in adapters])
            session, pages, _ = open_weights(
                graph, manifest, cache, threads=threads, notify=notify, low_rank=low_rank
            )
            decoder.adapters = Adapters(session, pages, {a.name: a.weight for a in adapters})
            del low_rank
            trim_heap()  # the matrices are in the session now, packed
    return decoder, entry
