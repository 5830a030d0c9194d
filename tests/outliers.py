"""Makes a checkpoint hard to quantize: outlier channels and massive activations."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from issun.export.canonical import canonical_tensors
from issun.export.config import read_config
from issun.export.lazy import CheckpointWeights
from issun.export.observe import Block
from issun.export.weights import Tensor
from tests.checkpoints import save_weights

Array = NDArray[np.float32]


class HardCheckpoint:
    """The weights of a checkpoint in memory, which can be changed and written to another folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.family, self.config = read_config(folder)
        self.weights = load_float32(folder)

    def write(self, folder: Path) -> Path:
        """Write the changed checkpoint to a new folder."""
        shutil.copytree(self._folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        folder.chmod(0o755)
        save_weights(folder, self.weights)
        return folder

    def at(self, layer: int, name: str) -> Array:
        return self.weights[f"transformer.h.{layer}.{name}"]

    def outlier_channels(self) -> None:
        """Multiply 4 channels of every LayerNormalization by 60, which is exact in float32."""
        rng = np.random.default_rng(0)
        for layer in range(self.config.n_layer):
            for norm, linear in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
                where = rng.choice(self.config.n_embd, 4, replace=False)
                self.at(layer, f"{norm}.weight")[where] *= 60
                self.at(layer, f"{norm}.bias")[where] *= 60
                self.at(layer, f"{linear}.weight")[where] /= 60

    def constant(self) -> None:
        """Set one hidden unit of every MLP to 300 for all tokens; divide its weights by 300."""
        rng = np.random.default_rng(1)
        for layer in range(self.config.n_layer):
            unit = rng.integers(self.config.n_inner)
            self.at(layer, "mlp.c_fc.weight")[:, unit] = 0
            self.at(layer, "mlp.c_fc.bias")[unit] = 300
            self.at(layer, "mlp.c_proj.weight")[unit] /= 300

    def varying(self, ids: Sequence[int]) -> None:
        """Let two units of every other MLP vary between 200 and 400 over these ids."""
        rng = np.random.default_rng(2)
        for layer in range(0, self.config.n_layer, 2):
            inputs = self._mlp_inputs(ids, layer)
            for unit in rng.choice(self.config.n_inner, 2, replace=False):
                drive = inputs @ self.at(layer, "mlp.c_fc.weight")[:, unit]
                middle = (drive.max() + drive.min()) / 2
                scale = 100 / (drive.max() - middle)
                self.at(layer, "mlp.c_fc.weight")[:, unit] *= scale
                self.at(layer, "mlp.c_fc.bias")[unit] = 300 - middle * scale
                self.at(layer, "mlp.c_proj.weight")[unit] /= 300

    def _mlp_inputs(self, ids: Sequence[int], layer: int) -> Array:
        stored = {
            name.removeprefix(self.family.base): InMemory(name, array)
            for name, array in self.weights.items()
        }
        tensors = canonical_tensors(stored, self.family, self.config)
        weights = CheckpointWeights(self.config, tensors, "float32")
        hidden = weights.embed(np.array([ids]))
        for number in range(layer + 1):
            seen = Block(weights, number).run(hidden)
            hidden = seen.output
        return seen.inputs["up"][0]


def load_float32(folder: Path) -> dict[str, Array]:
    """The weights of a checkpoint in one file, as float32 arrays that can be changed."""
    stored = load_file(folder / "model.safetensors")
    return {name: np.array(array, np.float32) for name, array in stored.items()}


def write_hard_llama(source: Path, target: Path) -> Path:
    """Write the Llama checkpoint `source` with outliers that change nothing in float32.

    4 channels of every norm are 60 times as large, and 2 units of every MLP 300 times.
    """
    weights, rng = load_float32(source), np.random.default_rng(0)
    for layer in range(sum(name.endswith("input_layernorm.weight") for name in weights)):
        at = f"model.layers.{layer}."
        for norm, linears in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            gain = weights[f"{at}{norm}.weight"]
            where = rng.choice(len(gain), 4, replace=False)
            gain[where] *= 60
            for linear in linears:
                weights[f"{at}{linear}.weight"][:, where] /= 60
        up, down = (weights[f"{at}mlp.{part}_proj.weight"] for part in ("up", "down"))
        units = rng.choice(len(up), 2, replace=False)
        up[units] *= 300
        down[:, units] /= 300
    target.mkdir()
    shutil.copyfile(source / "config.json", target / "config.json")
    save_weights(target, weights)
    return target


class InMemory(Tensor):
    """A tensor that is an array."""

    def __init__(self, name: str, array: Array) -> None:
        super().__init__(name, array.shape, "F32")
        self._array = array

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        return self._array[start:stop]
