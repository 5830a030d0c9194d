"""`issun cache`: manages the cache of packed weights."""

from __future__ import annotations

from typing import Annotated

import typer

from issun.cli.language import note, printable, tr
from issun.runtime.errors import IssunError, check_choice
from issun.runtime.weights.weight_cache import CACHE_VARIABLE, WeightCache, default_cache

_ACTIONS = ("list", "verify", "clear")


def run(
    *,
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help=tr("list, verify (check against the hashes) or clear (remove all)."),
        ),
    ] = "list",
) -> None:
    """List the entries, check them against their hashes, or remove all."""
    check_choice("action", action, _ACTIONS)
    cache = default_cache()
    if cache is None:
        raise IssunError("{name} is empty, so there is no cache.", name=CACHE_VARIABLE)
    if action == "clear":
        note("Freed {size:,.1f} MB in {folder}.", size=cache.clear() / 1e6, folder=cache.folder)
        return
    _list(cache)
    if action == "verify":
        damaged = [entry.bundle for entry in cache.damaged()]
        if damaged:
            raise IssunError(
                "Damaged: {bundles}. `issun cache clear` removes all packed weights.",
                bundles=", ".join(damaged),
            )
        note("All packed weights are intact.")


def _list(cache: WeightCache) -> None:
    entries = cache.entries()
    for entry in entries:
        print(printable(f"{cache.size_of(entry.key) / 1e6:9,.1f} MB  {entry.bundle}"))
    note(
        "Entries in {folder}: {count}, {size:,.1f} MB in total.",
        count=len(entries),
        folder=cache.folder,
        size=sum(cache.size_of(entry.key) for entry in entries) / 1e6,
    )
