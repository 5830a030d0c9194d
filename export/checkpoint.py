"""Opens a checkpoint and validates its config, weights and tokenizer before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from issun.export.adapter import refuse_adapter
from issun.export.canonical import FirstRows, canonical_tensors, expected_shapes
from issun.export.config import read_config
from issun.export.errors import CheckpointError
from issun.export.lora import read_adapter
from issun.export.merging import WeightedAdapter, merge
from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.tensors import drop_tied_head, find_tensors, report_foreign, tie_head
from issun.export.tokenizer import TokenizerSource, read_tokenizer
from issun.export.weights import Tensor, open_weights
from issun.runtime.errors import Notify

_FLOATS = {"F32", "F16", "BF16", "float32", "float16", "bfloat16"}
_MAX_LISTED = 12
DEFAULT_CONTEXT = 8192  # tokens at most: rotary tables and KV caches grow with the context


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A validated checkpoint.

    `stored` has the tensors by the names of the model class, without the base model's prefix.
    `tensors` has the same weights with the names and the layout of `canonical.py`. Both include the
    adapters that are `merged`.
    """

    folder: Path
    family: Family
    network: Network
    stored: dict[str, Tensor]
    tensors: dict[str, Tensor]
    files: tuple[Path, ...]
    tokenizer: TokenizerSource
    merged: tuple[WeightedAdapter, ...] = ()


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """Where an adapter is, its name for messages and the manifest, and its weight in the sum."""

    folder: Path
    name: str
    weight: float = 1.0


def open_checkpoint(
    folder: Path,
    *,
    tokenizer: Path | None = None,
    adapters: Sequence[AdapterFolder] = (),
    notify: Notify = lambda template, **values: None,
) -> Checkpoint:
    """Open and validate the checkpoint in `folder`, without reading weights (except a tied head).

    `tokenizer` is another folder to take the tokenizer from. `adapters` are merged. `notify` is
    called about tensors that are left out. Raises CheckpointError, which lists every missing,
    unknown or wrongly shaped tensor at once.
    """
    family, network, source, merged = read_metadata(folder, tokenizer, adapters)
    stored, files = open_weights(folder)
    found = find_tensors(stored, family, folder)
    tensors, expected = found.tensors, expected_shapes(family, network)
    if network.tie_word_embeddings:
        tie_head(tensors, family)
    if family.head_weight in tensors:
        expected |= {family.head_weight: (network.vocab_size, network.n_embd)}
    _validate(tensors, expected, folder)
    if network.tie_word_embeddings:
        drop_tied_head(tensors, family, folder, notify)
    report_foreign(found.foreign, network.family, folder, notify)
    if merged:
        tensors, network = merge(tensors, merged, family, network)
    canonical = canonical_tensors(tensors, family, network)
    files = [*files, source.path]
    return Checkpoint(folder, family, network, tensors, canonical, tuple(files), source, merged)


def limit_context(
    checkpoint: Checkpoint,
    context: int | None = None,
    *,
    notify: Notify = lambda template, **values: None,
) -> Checkpoint:
    """The checkpoint with `context` positions; by default all that it has, up to 8,192.

    `notify` is called if the default is shorter than the checkpoint's. Raises CheckpointError if
    `context` is longer.
    """
    available = checkpoint.network.n_positions
    if context is None and available > DEFAULT_CONTEXT:
        notify(
            "{folder}: the bundle's context is {context:,} of {available:,} tokens, since a longer "
            "one takes more memory; --context sets another.",
            folder=checkpoint.folder,
            context=DEFAULT_CONTEXT,
            available=available,
        )
    positions = min(available, DEFAULT_CONTEXT) if context is None else context
    if positions > available:
        raise CheckpointError(
            "A context of {context:,} tokens is longer than that of {folder}, {available:,} "
            "tokens.",
            context=positions,
            folder=checkpoint.folder,
            available=available,
        )
    tensors = dict(checkpoint.tensors)
    if checkpoint.network.learned_positions:
        tensors["positions.weight"] = FirstRows(tensors["positions.weight"], positions)
    network = replace(checkpoint.network, n_positions=positions)
    return replace(checkpoint, network=network, tensors=tensors)


def read_metadata(
    folder: Path, tokenizer: Path | None, adapters: Sequence[AdapterFolder] = ()
) -> tuple[Family, Network, TokenizerSource, tuple[WeightedAdapter, ...]]:
    """Read and check everything in `folder` but the weights: config, tokenizer and adapters.

    Raises CheckpointError, also for an adapter instead of a checkpoint, and BundleError.
    """
    if not folder.is_dir():
        raise CheckpointError("There is no folder {folder}.", folder=folder)
    refuse_adapter(folder, _file_names(folder))
    family, network = read_config(folder)
    merged = tuple(
        WeightedAdapter(read_adapter(it.folder, family, network, name=it.name), it.weight)
        for it in adapters
    )
    rows = max([network.vocab_size, *(it.adapter.vocab_size for it in merged)])
    return family, network, read_tokenizer(tokenizer or folder, rows), merged


def _file_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _validate(
    tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], folder: Path
) -> None:
    faults = [f"{name} is missing" for name in expected if name not in tensors]
    for name, tensor in tensors.items():
        if name not in expected:
            faults.append(f"{name} is unknown")
        elif tensor.shape != expected[name]:
            faults.append(f"{name} has shape {list(tensor.shape)}, not {list(expected[name])}")
        elif tensor.dtype not in _FLOATS:
            faults.append(f"{name} has type {tensor.dtype}, not float32, float16 or bfloat16")
    if faults:
        more = f"; and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
        raise CheckpointError(
            "The weights in {folder} do not match its config.json: {faults}{more}.",
            folder=folder,
            faults="; ".join(faults[:_MAX_LISTED]),
            more=more,
        )
