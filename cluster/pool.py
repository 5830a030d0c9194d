"""Starts the workers of a batch: processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from issun.cluster.driver import Workers
from issun.cluster.loading import LoadOptions
from issun.cluster.local import LocalWorkers

_Options = TypeVar("_Options", bound=LoadOptions)


def start_workers(
    make: Callable[[_Options], Any],
    options: _Options,
    *,
    local: int,
    ray: str | None = None,
    most: int | None = None,
) -> Workers:
    """Start `local` processes, or, at the address `ray`, as many actors as fit, at most `most`.

    Each has what `make(options)` returns. Raises BatchError if the cluster cannot be reached.
    """
    if ray is None:
        return LocalWorkers(make, options, local)
    from issun.cluster.actors import RayWorkers  # noqa: PLC0415

    return RayWorkers(ray, make, options, most)
