"""adapter_config.json of a LoRA adapter: which modules it changes, and by how much.

Source: `LoraConfig`, `check_target_module_exists` and `LoraLayer.update_layer` in PEFT 0.21.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.export.models.fields import Fields

_MAX_RANK, _MAX_ALPHA = 65_536, 1e9
_USED = {
    *("alpha_pattern", "bias", "exclude_modules", "init_lora_weights", "layers_pattern"),
    *("layers_to_transform", "lora_alpha", "modules_to_save", "peft_type", "r"),
    *("rank_pattern", "target_modules", "use_rslora"),
}
# Fields for training, for the initial A and B, or derived from the model: `fan_in_fan_out` follows
# from the class of a layer, and PEFT corrects it if it does not. Tied tensors are all in the file.
_WITHOUT_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying"),
    *(
        "eva_config",
        "fan_in_fan_out",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
    ),
    *("peft_version", "qalora_group_size", "revision", "runtime_config", "task_type"),
}
# Other values of `init_lora_weights` subtract the initial product from the base's weights.
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")
_BIASES = ("none", "all", "lora_only")


class LoRAConfig:
    """The checked fields of an adapter_config.json.

    Modules are named by their path in the base model, such as `transformer.h.0.attn.c_attn`.
    """

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        """Raises CheckpointError for other adapters than LoRA, and for fields without support."""
        self.path, fields = path, Fields(raw, path)
        if raw.get("peft_type") != "LORA":
            raise CheckpointError(
                "{path}: the adapter is of type {kind}, and issun reads LoRA only: merge it with "
                "peft (merge_and_unload), if it can be merged, and export the result.",
                path=path,
                kind=raw.get("peft_type"),
            )
        for key, value in raw.items():
            if value and key not in _USED | _WITHOUT_EFFECT:
                self._refuse(key, value)
        if (initial := raw.get("init_lora_weights")) not in _INITIAL:
            self._refuse("init_lora_weights", initial)
        self.bias = raw.get("bias") or "none"
        if self.bias not in _BIASES:
            self._refuse("bias", self.bias)
        self._rslora = fields.flag("use_rslora", default=False)
        self._rank = fields.integer("r", 8)
        self._alpha = fields.number("lora_alpha", 8, most=_MAX_ALPHA)
        self._ranks = self._pattern(raw, "rank_pattern")
        self._alphas = self._pattern(raw, "alpha_pattern")
        self._targets = self._names(raw, "target_modules", text=True)
        self._excluded = self._names(raw, "exclude_modules", text=True)
        self._saved = self._names(raw, "modules_to_save")
        self._layers = self._numbers(raw, "layers_to_transform")
        patterns = self._names(raw, "layers_pattern", text=True)
        self._layers_patterns = [patterns] if isinstance(patterns, str) else patterns
        if not self._targets or (isinstance(self._targets, str) and self._layers is not None):
            self._refuse("target_modules", raw.get("target_modules"))

    def targets(self, module: str, *, linear: bool) -> bool:
        """True if the adapter adds A and B to a module.

        `linear` is true for the linear layers of blocks, which "all-linear" stands for.
        """
        if _named(module, self._excluded) or self.saves(module):
            return False
        if isinstance(self._targets, str) and self._targets.lower() == "all-linear":
            return linear
        if not _named(module, self._targets):
            return False
        return self._layers is None or self._layer(module) in self._layers

    def saves(self, module: str) -> bool:
        """True if the adapter has weights of its own for a module (`modules_to_save`)."""
        return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self._saved)

    def rank(self, module: str) -> int:
        """The rank of A and B for a module."""
        return int(_matched(self._ranks, module, self._rank))

    def scale(self, module: str) -> float:
        """What B @ A is multiplied by."""
        rank = self.rank(module)
        return _matched(self._alphas, module, self._alpha) / (
            math.sqrt(rank) if self._rslora else rank
        )

    def _layer(self, module: str) -> int | None:
        """The number of the layer that a module is in."""
        patterns = [rf"(?:^|.*?\.){p}" for p in self._layers_patterns] or [r".*?\.[^.]*"]
        for pattern in patterns:
            if match := re.match(rf"{pattern}\.(\d+)\.", module):
                return int(match[1])
        return None

    def _pattern(self, raw: Mapping[str, Any], key: str) -> dict[str, float]:
        found = raw.get(key) or {}
        if not isinstance(found, Mapping):
            self._refuse(key, found)
        limits = Fields(found, self.path)
        for name in found:
            if key == "rank_pattern":
                limits.integer(name)
            limits.number(name, most=_MAX_RANK if key == "rank_pattern" else _MAX_ALPHA)
            self._check_pattern(key, name)
        return dict(found)

    def _names(self, raw: Mapping[str, Any], key: str, *, text: bool = False) -> Any:
        """A list of names or patterns, or a single one if that is allowed as `text`."""
        found = raw.get(key) or []
        names = [found] if text and isinstance(found, str) else found
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._refuse(key, found)
        for name in names:
            self._check_pattern(key, name)
        return found

    def _numbers(self, raw: Mapping[str, Any], key: str) -> list[int] | None:
        found = raw.get(key)
        if found is None or found == []:
            return None
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(number, int) for number in found):
            self._refuse(key, found)
        return list(found)

    def _check_pattern(self, key: str, pattern: str) -> None:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            self._refuse(key, pattern)

    def _refuse(self, key: str, value: object) -> None:
        raise CheckpointError(
            "{path}: {key} is {value}, which issun does not support in an adapter: merge the "
            "adapter with peft (merge_and_unload) and export the result.",
            path=self.path,
            key=key,
            value=repr(value),
        )


def read_lora_config(path: Path) -> LoRAConfig:
    """Read an adapter_config.json; raises CheckpointError."""
    return LoRAConfig(read_json(path), path)


def _named(module: str, names: str | Collection[str]) -> bool:
    """True if a module matches the pattern, or is one of the names, or ends with one."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _matched(patterns: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that the end of a module's name matches."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
