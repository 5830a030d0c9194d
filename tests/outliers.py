"""Makes a checkpoint hard to quantize: outlier channels and massive activations."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from issun.export.config import GPT2Config, read_config
from issun.export.forward import run_block
from tests.checkpoints import save_weights

Array = NDArray[np.float32]


class HardCheckpoint:
    """The weights of a checkpoint in memory, which can be changed and written to another folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config: GPT2Config = read_config(folder)
        self.weights: dict[str, Array] = load_file(folder / "model.safetensors")

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
        x = self.weights["transformer.wte.weight"][list(ids)]
        hidden = (x + self.weights["transformer.wpe.weight"][: len(ids)])[None]
        for number in range(layer + 1):

            def get(name: str, number: int = number) -> Array:
                return self.at(number, name)

            seen = run_block(self.config, number, hidden, get)
            hidden = seen.output
        return seen.inputs["mlp.c_fc"][0]
