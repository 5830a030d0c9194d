"""The OpenAI API over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from issun.runtime.adapter import Adapter
    from issun.runtime.manifest import KVCacheType

__all__ = ["create_app"]


def create_app(
    bundle: str | Path | None = None,
    *,
    threads: int | None = None,
    kv_cache: KVCacheType | None = None,
    trust: bool = False,
    adapters: Sequence[str | Path | Adapter] = (),
    **options: Any,
) -> Starlette:
    """Load a bundle, by default the demonstration model, and return its ASGI application.

    For servers other than `issun serve`, which start and end it by the lifespan protocol. A request
    chooses one of `adapters` by its model's name, `name:adapter`. `options` are fields of
    `issun.server.options.ServerOptions`; those of the socket have no effect. Raises what
    `Model.load` raises, and ParameterError or ServerError for invalid options.
    """
    from issun.runtime import Model  # noqa: PLC0415
    from issun.server.app import make_app  # noqa: PLC0415
    from issun.server.options import ServerOptions  # noqa: PLC0415

    chosen = ServerOptions(**options)
    model = Model.load(bundle, threads=threads, kv_cache=kv_cache, trust=trust, adapters=adapters)
    return make_app(model, chosen)
