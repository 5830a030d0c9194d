"""Opens the checkpoint that a user names, optionally with the tokenizer of another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from issun.export.checkpoint import (
    AdapterFolder,
    Checkpoint,
    open_checkpoint,
    read_metadata,
)
from issun.export.hub import Located, locate, locate_adapter, locate_tokenizer
from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.options import AdapterSource
from issun.runtime.errors import Notify


def open_source(
    source: str,
    *,
    tokenizer: str | Path | None = None,
    adapters: Sequence[AdapterSource] = (),
    revision: str | None = None,
    token: str | None = None,
    accept: Callable[[Family, Network], None] = lambda family, network: None,
    notify: Notify = lambda template, **values: None,
) -> tuple[Located, Checkpoint, Located | None]:
    """Find and open the checkpoint `source`; `tokenizer` is another folder or hub id to use.

    `adapters` are merged into its weights.

    Returns the location of the checkpoint, the open checkpoint, and the location of `tokenizer`.
    From the hub the small files are downloaded and checked before the weights, also by `accept`,
    which may raise. Raises CheckpointError and BundleError.
    """
    located_tokenizer = None if tokenizer is None else locate_tokenizer(str(tokenizer), token=token)
    spiece = None if located_tokenizer is None else located_tokenizer.folder

    merged = []
    for it in adapters:
        found = locate_adapter(str(it.source), token=token)
        merged.append(AdapterFolder(found.folder, found.name, it.weight))

    def check(folder: Path) -> None:
        family, network, *_ = read_metadata(folder, spiece, merged)
        accept(family, network)

    located = locate(source, revision=revision, token=token, check=check)
    checkpoint = open_checkpoint(located.folder, tokenizer=spiece, adapters=merged, notify=notify)
    accept(checkpoint.family, checkpoint.network)  # a folder's small files are not checked before
    return located, checkpoint, located_tokenizer
