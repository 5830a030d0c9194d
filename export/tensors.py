"""Maps the names in a weight file to those of the model class, whatever wrapper saved it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from issun.export.errors import CheckpointError
from issun.export.models.family import Family
from issun.export.weights import Tensor
from issun.runtime.errors import Notify

# Components that torch.compile, DDP, FSDP and activation checkpointing insert into names.
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Names under which peft and similar libraries save the tensors that they add to a model.
_ADAPTER = re.compile(
    r"(?:.*\.)?(?:lora_\w+|ia3_l|hada_\w+|lokr_\w+|b?oft_\w+|vera_\w+|vblora_\w+|fourierft_\w+"
    r"|hra_\w+|ln_tuning_layers|trainable_tokens_\w+|base_layer|modules_to_save|original_module"
    r"|prompt_embeddings|prompt_encoder|adapters)"
    r"(?:\..*)?"
)
# Ignored as in transformers, although the model that saved it may have used rotary embeddings.
_ROTARY = re.compile(r"(?:.*\.)?rotary_emb\.inv_freq")
_MAX_LISTED = 12
_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class FoundTensors:
    """Unvalidated tensors, named as in the model class without the base model's prefix.

    `foreign` are the other names in the file: other task heads, a value head, a second model.
    """

    tensors: dict[str, Tensor]
    foreign: list[str]


def find_tensors(stored: Mapping[str, Tensor], family: Family, folder: Path) -> FoundTensors:
    """Find the network's tensors in a file, under whatever prefix.

    The names that wrappers insert are removed; what precedes the names of the family's blocks,
    embeddings and last norm is the prefix. If there are several prefixes, the one that
    transformers reads is used. Raises CheckpointError for an adapter, and for several networks of
    which transformers reads none.
    """
    _refuse_adapter(stored, folder)
    originals: dict[str, str] = {}  # unwrapped name -> name in the file
    for name in sorted(stored, key=lambda name: _unwrapped(name) != name):
        originals.setdefault(_unwrapped(name), name)
    prefix = _prefix(originals, family, folder)
    head = next((name for name in _head_names(prefix, family) if name in originals), None)
    tensors = {} if head is None else {family.head_weight: stored[originals[head]]}
    used = set() if head is None else {originals[head]}
    for name, original in originals.items():
        own = name.removeprefix(prefix)
        if name == head or not name.startswith(prefix):
            continue
        if re.fullmatch(family.buffers, own):
            used.add(original)
        elif _is_inside(own, prefix, family):
            used.add(original)
            tensors[own] = stored[original]
    return FoundTensors(tensors, [name for name in stored if name not in used])


def tie_head(tensors: dict[str, Tensor], family: Family) -> None:
    """Use a tied head as the embedding if the file has only the head."""
    if family.embedding_weight not in tensors and family.head_weight in tensors:
        tensors[family.embedding_weight] = tensors.pop(family.head_weight)


def drop_tied_head(
    tensors: dict[str, Tensor], family: Family, folder: Path, notify: Notify
) -> None:
    """Drop the head of a tied model, as transformers does; notify if it differs."""
    head = tensors.pop(family.head_weight, None)
    if head is not None and not are_equal(head, tensors[family.embedding_weight]):
        notify(
            "{folder}: {head} differs from {embedding}, but config.json ties the two: it "
            "is ignored, as in transformers. If the model has a separate head, set "
            "tie_word_embeddings to false there.",
            folder=folder,
            head=family.head_weight,
            embedding=family.embedding_weight,
        )


def report_foreign(foreign: list[str], model: str, folder: Path, notify: Notify) -> None:
    """Notify about tensors in the file that a network of the family `model` has no use for."""
    if foreign:
        more = f" and {len(foreign) - _MAX_LISTED} more" if len(foreign) > _MAX_LISTED else ""
        notify(
            "{folder}: ignored {names}{more}, which {model} models do not have.",
            folder=folder,
            model=model,
            names=", ".join(sorted(foreign)[:_MAX_LISTED]),
            more=more,
        )


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefix(names: Iterable[str], family: Family, folder: Path) -> str:
    """The prefix of the network's names."""
    of_network = re.compile(rf"((?:.*?\.)??){family.part_pattern}.+")
    matches = (of_network.fullmatch(name) for name in names)
    found = sorted({match[1] for match in matches if match})
    for known in (family.base, ""):
        if known in found or not found:
            return known
    if len(found) > 1:
        raise CheckpointError(
            "{folder} contains several networks, and none under a name that transformers reads: "
            "{names}.",
            folder=folder,
            names=", ".join(
                prefix.removesuffix(family.base) + "*" for prefix in found[:_MAX_LISTED]
            ),
        )
    return found[0]


def _head_names(prefix: str, family: Family) -> list[str]:
    """Possible names of the head: next to the base model, next to a parent of it, or inside it."""
    parts = prefix.split(".")[:-1]
    outer = [".".join([*parts[:i], family.head_weight]) for i in reversed(range(len(parts)))]
    return [*outer, prefix + family.head_weight]


def _is_inside(name: str, prefix: str, family: Family) -> bool:
    """True for tensors of the network, known or not: they must not be ignored.

    Without the base model's prefix, heads of other tasks have the same prefix as the network.
    """
    if _ROTARY.fullmatch(name):
        return False
    return prefix.endswith(family.base) or re.match(family.part_pattern, name) is not None


def _refuse_adapter(stored: Iterable[str], folder: Path) -> None:
    if name := next((name for name in stored if _ADAPTER.fullmatch(name)), None):
        raise CheckpointError(
            "{folder}: the weights contain an adapter ({name}): merge it into its base model "
            "first (peft: merge_and_unload) and export the result.",
            folder=folder,
            name=name,
        )


def are_equal(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors of the same shape, in chunks of rows."""
    return all(
        np.array_equal(a.read(start, start + _CHUNK_ROWS), b.read(start, start + _CHUNK_ROWS))
        for start in range(0, a.shape[0], _CHUNK_ROWS)
    )
