"""Reads LoRA adapters as PEFT saves them: adapter_config.json and adapter_model.safetensors.

Source: Hu et al., "LoRA" (2021), and `get_peft_model_state_dict` in PEFT 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from issun.export.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_files
from issun.export.canonical import Shape, expected_shapes
from issun.export.errors import CheckpointError
from issun.export.lora_config import LoRAConfig, read_lora_config
from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.weights import Array, SafetensorsFile, Tensor
from issun.runtime.manifest import combined_sha256, sha256_of

_PREFIX = "base_model.model."  # of every name in the file
_FLOATS = {"F32", "F16", "BF16"}
_MAX_LISTED = 12


@dataclass(frozen=True, slots=True)
class Pair:
    """The two factors of a module's low-rank update, which adds `scale` * B @ A to its weight.

    `a` is (r, in) and `b` is (out, r), whichever way the weight is stored: (out, in), or (in, out)
    if `stored_in_out`.
    """

    a: Tensor
    b: Tensor
    scale: float
    stored_in_out: bool

    def read(self) -> tuple[Array, Array]:
        """A and B; raises CheckpointError if they contain NaN or infinity."""
        found = self.a.read(), self.b.read()
        for tensor, array in zip((self.a, self.b), found, strict=True):
            if not np.isfinite(array).all():
                raise CheckpointError("{name} contains NaN or infinity.", name=tensor.name)
        return found

    def is_zero(self) -> bool:
        """True if B @ A is zero, as before training."""
        return not (self.b.read().any() and self.a.read().any())


@dataclass(frozen=True, slots=True)
class Adapter:
    """A validated adapter; its tensors are read on demand.

    `pairs` has the updates by the modules' names, and `replaced` the tensors that take the place of
    the base's, by theirs: as in `Checkpoint.stored`, without the base model's prefix. `vocab_size`
    is the number of rows of the embedding, which may have grown.
    """

    name: str
    files: tuple[Path, ...]
    pairs: dict[str, Pair]
    replaced: dict[str, Tensor]
    vocab_size: int

    def refuse_zero(self) -> None:
        """Raise CheckpointError if all updates are zero, so that they change no weight."""
        if all(pair.is_zero() for pair in self.pairs.values()):
            raise CheckpointError(
                "{name} changes nothing: every update of the adapter is zero, as before training.",
                name=self.name,
            )

    def sha256(self) -> str:
        """One hash for the adapter's files."""
        return combined_sha256({path.name: sha256_of(path) for path in self.files})


def read_adapter(
    folder: Path, family: Family, network: Network, *, name: str | None = None
) -> Adapter:
    """Read the adapter in `folder` for a base model; nothing but names and shapes is read.

    `name` is for messages and the manifest; the folder's by default. Raises CheckpointError if
    there is no adapter, if it is not LoRA or uses an unsupported variant of it, and for every
    missing, unknown or wrongly shaped tensor.
    """
    if not folder.is_dir():
        raise CheckpointError("There is no folder {folder}.", folder=folder)
    check_adapter_files(folder, [path.name for path in folder.iterdir() if path.is_file()])
    path = folder / ADAPTER_WEIGHTS
    config = read_lora_config(folder / ADAPTER_CONFIG)
    tensors = SafetensorsFile(path).tensors
    stored = {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}
    embedding = _replacement(stored, family.base, family.embedding_weight)
    if embedding is not None and len(embedding.shape) == 2:
        network = replace(network, vocab_size=embedding.shape[0])
    reader = _Reader(stored, config, family, network)
    found = reader.read()
    if reader.faults:
        more = len(reader.faults) - _MAX_LISTED
        raise CheckpointError(
            "{path} does not fit the base model and adapter_config.json: {faults}{more}.",
            path=path,
            faults="; ".join(reader.faults[:_MAX_LISTED]),
            more=f"; and {more} more" if more > 0 else "",
        )
    return Adapter(
        name or folder.resolve().name,
        (folder / ADAPTER_CONFIG, path),
        *found,
        network.vocab_size,
    )


def _replacement(stored: Mapping[str, Tensor], base: str, name: str) -> Tensor | None:
    """The tensor that takes the place of the base's tensor `name`."""
    module, _, kind = name.rpartition(".")
    names = (f"{base}{name}", f"{base}{module}.base_layer.{kind}", name)
    return next((stored[key] for key in names if key in stored), None)


class _Reader:
    """Takes the tensors of a file one by one, and collects what is wrong with them."""

    def __init__(
        self, stored: Mapping[str, Tensor], config: LoRAConfig, family: Family, network: Network
    ) -> None:
        self._rest, self._config, self._family = dict(stored), config, family
        self._shapes = expected_shapes(family, network)
        self._shapes.setdefault(family.head_weight, (network.vocab_size, network.n_embd))
        # An adapter of the model without a head has names without the base model's prefix.
        bare = any(re.match(family.part_pattern, name) for name in stored)
        self._base = "" if bare else family.base
        self.faults: list[str] = []

    def read(self) -> tuple[dict[str, Pair], dict[str, Tensor]]:
        """The pairs and the replaced tensors."""
        weights = {
            name.removesuffix(".weight"): shape
            for name, shape in self._shapes.items()
            if len(shape) == 2
        }
        pairs = {
            module: pair
            for module, shape in weights.items()
            if self._config.targets(self._path(module), linear=self._is_linear(module))
            and (pair := self._pair(module, shape))
        }
        replaced = {
            name: tensor
            for name in self._shapes
            if (tensor := self._replaced(name, pairs)) is not None
        }
        self.faults += [f"{name} is unknown" for name in self._rest]
        if not pairs and not replaced and not self.faults:
            self.faults.append("it has no tensor of this model")
        return pairs, replaced

    def _path(self, module: str) -> str:
        """A module's path in the base model."""
        return module if module == self._family.head else self._base + module

    def _is_linear(self, module: str) -> bool:
        """True for the linear layers of blocks; the head and embeddings are outside them."""
        return module != self._family.head and module not in self._family.top.values()

    def _pair(self, module: str, stored: Shape) -> Pair | None:
        path = self._path(module)
        rank, embeds = self._config.rank(path), module in self._family.top.values()
        in_out = embeds or (self._family.stored_in_out and self._is_linear(module))
        width, out = stored if in_out else stored[::-1]
        names = ("lora_embedding_A", "lora_embedding_B")
        a, b = names if embeds else ("lora_A.weight", "lora_B.weight")
        first = self._take(f"{path}.{a}", (rank, width))
        second = self._take(f"{path}.{b}", (out, rank))
        if first is None or second is None:
            return None
        return Pair(first, second, self._config.scale(path), in_out)

    def _replaced(self, name: str, pairs: Mapping[str, Pair]) -> Tensor | None:
        """The tensor that takes the place of the base's, if there is one or should be."""
        module, _, kind = name.rpartition(".")
        path = self._path(module)
        bias = self._config.bias
        expected = self._config.saves(path) or (
            kind == "bias" and (bias == "all" or (bias == "lora_only" and module in pairs))
        )
        inside = f"{path}.base_layer.{kind}"
        key = inside if inside in self._rest else f"{path}.{kind}"
        return self._take(key, self._shapes[name]) if expected or key in self._rest else None

    def _take(self, name: str, shape: Shape) -> Tensor | None:
        tensor = self._rest.pop(name, None)
        if tensor is None:
            self.faults.append(f"{name} is missing")
        elif tensor.shape != shape:
            self.faults.append(f"{name} has shape {list(tensor.shape)}, not {list(shape)}")
        elif tensor.dtype not in _FLOATS:
            self.faults.append(f"{name} has type {tensor.dtype}, not float32, float16 or bfloat16")
        else:
            return tensor
        return None
