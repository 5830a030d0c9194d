"""What a user names -> an open checkpoint, perhaps with the tokenizer of another one."""

from __future__ import annotations

from pathlib import Path

from issun.export.checkpoint import Checkpoint, open_checkpoint, read_described
from issun.export.hub import Located, locate, locate_tokenizer
from issun.runtime.errors import Notify


def open_source(
    source: str,
    *,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    token: str | None = None,
    notify: Notify = lambda template, **values: None,
) -> tuple[Located, Checkpoint, Located | None]:
    """Find the checkpoint `source` and open it, with the tokenizer of another folder or hub id.

    Gives where the one is, the open checkpoint, and where the other is, if it was asked for.
    Of a hub's repository the small files come first, so that what they rule out is refused before
    the weights come. Raises CheckpointError and BundleError.
    """
    elsewhere = None if tokenizer is None else locate_tokenizer(str(tokenizer), token=token)
    spiece = None if elsewhere is None else elsewhere.folder

    def check(folder: Path) -> None:
        read_described(folder, spiece)

    located = locate(source, revision=revision, token=token, check=check)
    return located, open_checkpoint(located.folder, tokenizer=spiece, notify=notify), elsewhere
