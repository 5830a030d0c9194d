"""Opens a bundle's graph and weights as a decoder."""

from __future__ import annotations

from pathlib import Path

from issun.runtime.checks import check_graph
from issun.runtime.decoder import Decoder, IssunDecoder
from issun.runtime.errors import BundleError, Notify, check_choice
from issun.runtime.manifest import KV_CACHE_TYPES, KVCacheType, Manifest
from issun.runtime.optimum import OptimumDecoder
from issun.runtime.trust import check_trusted
from issun.runtime.weight_cache import WeightCache, open_weights


def open_decoder(
    folder: Path,
    manifest: Manifest,
    kv_cache: KVCacheType | None,
    cache: WeightCache | None,
    *,
    threads: int | None,
    trust: bool,
    notify: Notify,
) -> tuple[Decoder, Path | None]:
    """Return the decoder of the bundle in `folder`, with its graph for `kv_cache` or the default.

    Also returns the folder of the entry in `cache` whose weights it maps, if any. Raises
    BundleError if there is no such graph, if it is damaged, or, without `trust`, if issun cannot
    have exported it.
    """
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
    graph = folder / manifest.graphs[kind]
    check_trusted(graph, manifest, trust=trust)
    session, pages, entry = open_weights(graph, manifest, cache, threads=threads, notify=notify)
    check_graph(folder, manifest, session)
    make_decoder = OptimumDecoder if manifest.graph == "optimum" else IssunDecoder
    decoder = make_decoder(session, manifest.architecture)
    decoder.pages = pages
    return decoder, entry
