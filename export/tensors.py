"""Names in a weight file -> the tensors of GPT2LMHeadModel, whatever wrapped the saved model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from issun.export.config import GPT2Config
from issun.export.errors import CheckpointError
from issun.export.weights import Tensor
from issun.runtime.errors import Notify

EMBEDDING, HEAD = "wte.weight", "lm_head.weight"

# What torch.compile, DDP, FSDP and activation checkpointing put between the parts of a name.
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# The names with which peft and its like save what they add to a model.
_ADAPTER = re.compile(
    r"(?:.*\.)?(?:lora_\w+|ia3_l|hada_\w+|lokr_\w+|b?oft_\w+|vera_\w+|vblora_\w+|fourierft_\w+"
    r"|hra_\w+|ln_tuning_layers|trainable_tokens_\w+|base_layer|modules_to_save|original_module"
    r"|prompt_embeddings|prompt_encoder|adapters)"
    r"(?:\..*)?"
)
_PART = r"(?:h\.\d+|wte|wpe|ln_f)\."
_OF_NETWORK = re.compile(rf"((?:.*?\.)??){_PART}.+")
# Buffers of old checkpoints that hold the causal mask: they say nothing that the graph has not.
_MASK = re.compile(r"h\.\d+\.(?:attn|crossattention)\.(?:bias|masked_bias)")
# transformers leaves it out, too, though what has saved it may have rotated queries and keys.
_ROTARY = re.compile(r"(?:.*\.)?rotary_emb\.inv_freq")
_BASE = "transformer."
_MAX_LISTED = 12
_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Network:
    """The tensors by the names of GPT2LMHeadModel less `transformer.`, unchecked.

    `foreign` are the other names in the file: heads for another task, a value head, a second model.
    """

    tensors: dict[str, Tensor]
    foreign: list[str]


def find_network(stored: Mapping[str, Tensor], folder: Path) -> Network:
    """Find the network in a file, behind whatever prefix.

    Wrappers' names are taken out, and what stands in front of `h.0`, `wte`, `wpe` and `ln_f` is
    the prefix. Where there are several, that which transformers reads counts. Raises
    CheckpointError for an adapter, and for several networks of which none is transformers'.
    """
    _refuse_adapter(stored, folder)
    plain: dict[str, str] = {}
    for name in sorted(stored, key=lambda name: _unwrapped(name) != name):
        plain.setdefault(_unwrapped(name), name)
    prefix = _prefix(plain, folder)
    head = next((name for name in _head_names(prefix) if name in plain), None)
    tensors = {} if head is None else {HEAD: stored[plain[head]]}
    used = set() if head is None else {plain[head]}
    for name, original in plain.items():
        own = name.removeprefix(prefix)
        if name == head or not name.startswith(prefix) or not _is_inside(own, prefix):
            continue
        used.add(original)
        if not _MASK.fullmatch(own):
            tensors[own] = stored[original]
    return Network(tensors, [name for name in stored if name not in used])


def tie_head(tensors: dict[str, Tensor], config: GPT2Config) -> None:
    """Where the head is tied and the file holds it alone, make it the embedding."""
    if config.tie_word_embeddings and EMBEDDING not in tensors and HEAD in tensors:
        tensors[EMBEDDING] = tensors.pop(HEAD)


def drop_tied_head(tensors: dict[str, Tensor], folder: Path, notify: Notify) -> None:
    """Forget the head of a tied model, as transformers does; say so where it is another."""
    head = tensors.pop(HEAD, None)
    if head is not None and not _are_equal(head, tensors[EMBEDDING]):
        notify(
            "{folder}: lm_head.weight is not wte.weight, but config.json ties the two: it is left "
            "out, as transformers does. If the model has a head of its own, set "
            "tie_word_embeddings to false there.",
            folder=folder,
        )


def report_foreign(foreign: list[str], folder: Path, notify: Notify) -> None:
    """Name what of the file is left out, if anything."""
    if foreign:
        more = f" and {len(foreign) - _MAX_LISTED} more" if len(foreign) > _MAX_LISTED else ""
        notify(
            "{folder}: left out {names}{more}, which GPT2LMHeadModel has not.",
            folder=folder,
            names=", ".join(sorted(foreign)[:_MAX_LISTED]),
            more=more,
        )


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefix(names: Iterable[str], folder: Path) -> str:
    """What stands in front of the names of the network."""
    matches = (_OF_NETWORK.fullmatch(name) for name in names)
    found = sorted({match[1] for match in matches if match})
    for known in (_BASE, ""):
        if known in found or not found:
            return known
    if len(found) > 1:
        raise CheckpointError(
            "{folder} holds several networks, and none where transformers looks: {names}.",
            folder=folder,
            names=", ".join(prefix.removesuffix(_BASE) + "*" for prefix in found[:_MAX_LISTED]),
        )
    return found[0]


def _head_names(prefix: str) -> list[str]:
    """Where the head may be: beside the base model or one of what holds it, or within it."""
    parts = prefix.split(".")[:-1]
    outer = [".".join([*parts[:i], HEAD]) for i in reversed(range(len(parts)))]
    return [*outer, prefix + HEAD]


def _is_inside(name: str, prefix: str) -> bool:
    """True for what is the network's own, known or not: nothing of it may be left out.

    Without `transformer.` in front of them, heads stand beside the network's parts.
    """
    if _ROTARY.fullmatch(name):
        return False
    return prefix.endswith(_BASE) or re.match(_PART, name) is not None


def _refuse_adapter(stored: Iterable[str], folder: Path) -> None:
    if name := next((name for name in stored if _ADAPTER.fullmatch(name)), None):
        raise CheckpointError(
            "{folder}: the weights hold an adapter ({name}): merge it with its base first (peft: "
            "merge_and_unload) and export the result.",
            folder=folder,
            name=name,
        )


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Compare two tensors of one shape, some rows at a time."""
    return all(
        np.array_equal(one.read(start, start + _CHUNK_ROWS), other.read(start, start + _CHUNK_ROWS))
        for start in range(0, one.shape[0], _CHUNK_ROWS)
    )
