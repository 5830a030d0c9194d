"""Loads a bundle as one of several workers of a machine."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import msgspec
import onnxruntime

from issun.cluster.pinning import one_at_a_time, pin
from issun.cluster.plan import MAX_SLOTS, check_layout
from issun.runtime.adapter import Adapter
from issun.runtime.errors import check_choice, check_range, check_switch
from issun.runtime.manifest import KV_CACHE_TYPES, KVCacheType
from issun.runtime.model import Model
from issun.runtime.weights.weight_cache import cpu_description


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """A worker's bundle and threads, and how many answers it generates at the same time.

    Raises ParameterError for invalid values.
    """

    bundle: Path | None = None
    adapter: Adapter | None = None
    kv_cache: KVCacheType | None = None
    trust: bool = False
    threads: int | None = 1
    slots: int = MAX_SLOTS
    pinned: bool = False

    def __post_init__(self) -> None:
        """Check numbers and switches."""
        check_layout(None, self.threads, None)
        check_range("slots", self.slots, Integral, 1, math.inf)
        if self.kv_cache is not None:
            check_choice("kv_cache", self.kv_cache, KV_CACHE_TYPES)
        check_switch("trust", self.trust)
        check_switch("pinned", self.pinned)


class WorkerInfo(msgspec.Struct, frozen=True):
    """What a worker runs: what must be the same for all, the CPU, and where."""

    bundle: str  # the bundle's id, or that of bundle and adapter
    onnxruntime: str
    kv_cache: str
    cpu: str
    pid: int
    cpus: list[int]  # bound to these


class Loaded(NamedTuple):
    """A worker's model, and what it reports about it."""

    model: Model
    info: WorkerInfo


def load(options: LoadOptions) -> Loaded:
    """Load a bundle in this process, on cores of its own; raises what `Model.load` raises."""
    cpus = pin(options.threads or 1) if options.pinned else []
    # Of several that load at once, all but one would use weights that are not mapped.
    with one_at_a_time("load"):
        model = Model.load(
            options.bundle,
            threads=options.threads,
            kv_cache=options.kv_cache,
            trust=options.trust,
            adapters=[options.adapter] if options.adapter else [],
        )
    info = WorkerInfo(
        bundle=model.kv_id(options.adapter.name if options.adapter else None),
        onnxruntime=onnxruntime.__version__,
        kv_cache=model.decoder.kv_cache,
        cpu=cpu_digest(),
        pid=os.getpid(),
        cpus=cpus,
    )
    return Loaded(model, info)


def cpu_digest() -> str:
    """Return what is the same for CPUs that round alike."""
    return hashlib.sha256(cpu_description().encode()).hexdigest()[:12]
