"""The prompt format of a base's records, and the records' token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from issun.export.checkpoint import Checkpoint
from issun.export.errors import CheckpointError
from issun.export.models.gpt2 import GPT2
from issun.export.prompt_format import choose_template
from issun.export.template import ALPACA
from issun.runtime.errors import Notify
from issun.runtime.manifest import AnyTemplate
from issun.runtime.text.prompt import open_format
from issun.training.data import Record, line_numbers
from issun.training.errors import DataError
from issun.training.recipe import Recipe
from issun.training.records import EOS

Encode = Callable[[Record], list[int]]


def choose_format(
    checkpoint: Checkpoint, name: str, asked: str | Path | None, notify: Notify
) -> AnyTemplate:
    """The records' prompt format for a base called `name`; raises CheckpointError.

    `asked` is the name of a shipped template or a file. The default is alpaca-japanese for GPT-2,
    as for the published model, and for other families the format that an export would choose.
    """
    default = ALPACA.name if checkpoint.family is GPT2 else None
    chosen = choose_template(checkpoint, name, asked or default)
    if chosen.template == ALPACA and checkpoint.tokenizer.roles.get("eos") != EOS:
        raise CheckpointError(
            "{folder}: records end with {eos}, which is not the end token of this tokenizer.",
            folder=checkpoint.folder,
            eos=EOS,
        )
    if asked or default is None:
        chosen.report(notify)
    return chosen.template


@contextmanager
def open_encoder(checkpoint: Checkpoint, template: AnyTemplate, path: Path) -> Iterator[Encode]:
    """A function from a record of the file `path` to its token ids in the format `template`.

    Raises CheckpointError if the tokenizer has no end token.
    """
    tokenizer, eos = checkpoint.tokenizer.open(), checkpoint.tokenizer.tokens.eos
    if eos is None:
        raise CheckpointError(
            "{folder}: the tokenizer names no end token (eos_token), with which records end.",
            folder=checkpoint.folder,
        )
    if template == ALPACA:
        yield lambda record: record.encode(tokenizer)
        return
    with closing(open_format(template, tokenizer)) as prompt:

        def encode(record: Record) -> list[int]:
            if record.example is None:
                raise DataError(
                    "{path}: finished records have the format {format}, and the model's is {name}: "
                    "give JSON, CSV or Parquet.",
                    path=path,
                    format=ALPACA.name,
                    name=template.name,
                )
            return record.example.encode_in(prompt, eos)

        yield encode


def encode_records(
    records: list[Record],
    encode: Encode,
    limit: int,
    recipe: Recipe,
    *,
    path: Path,
    notify: Notify,
) -> list[list[int]]:
    """The token ids of each record; raises DataError for more than `limit`, unless truncated."""
    rows = [encode(record) for record in records]
    long = [record.line for record, row in zip(records, rows, strict=True) if len(row) > limit]
    if not long:
        return rows
    if not recipe.truncate:
        raise DataError(
            "{path}: {count:,} of {total:,} records have more than {limit:,} tokens ({lines}): "
            "shorten them, or truncate them with --truncate.",
            path=path,
            count=len(long),
            total=len(records),
            limit=limit,
            lines=line_numbers(long),
        )
    notify(
        "{count:,} of {total:,} records are truncated to {limit:,} tokens.",
        count=len(long),
        total=len(records),
        limit=limit,
    )
    return [row[:limit] for row in rows]
