"""Hyperparameters of a fine-tuning; without LoRA, the defaults are those of the published model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from issun.runtime.errors import ParameterError, check_choice

# issun's names -> those of transformers' Trainer.
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_bnb_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
}


_FULL_LEARNING_RATE, _LORA_LEARNING_RATE = 1e-7, 2e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The shape of a low-rank adapter; raises ParameterError for invalid values.

    An adapter adds `alpha / rank * B @ A` to the weights of linear layers; `alpha` is twice the
    rank by default. `target_modules` are names of linear layers as the checkpoint has them, or the
    ends of such names; by default all linear layers of the blocks. Source: Hu et al., 2021.
    """

    rank: int = 16
    alpha: int | None = None
    target_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ParameterError for values out of range; resolve the default of `alpha`."""
        _check_whole("rank", self.rank, 1)
        if self.alpha is None:
            object.__setattr__(self, "alpha", 2 * self.rank)
        _check_whole("alpha", self.alpha, 1)
        if isinstance(self.target_modules, str):
            raise ParameterError(
                "{name} is {value!r}, it must be a tuple of non-empty strings.",
                name="target_modules",
                value=self.target_modules,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters of a fine-tuning; raises ParameterError for invalid values.

    `lora` trains an adapter instead of all weights. `learning_rate` is 1e-7 by default, and 2e-4
    with `lora`. `batch_size` is in records per device. `max_length` is in tokens, by default the
    model's context; a longer record is an error unless `truncate` is set.
    """

    epochs: int = 4
    learning_rate: float | None = None
    batch_size: int = 8
    gradient_accumulation: int = 1
    max_length: int | None = None
    truncate: bool = False
    optimizer: str = "auto"
    seed: int = 0
    lora: Lora | None = None

    def __post_init__(self) -> None:
        """Raise ParameterError for values out of range and unknown names; resolve defaults."""
        if self.learning_rate is None:
            rate = _LORA_LEARNING_RATE if self.lora else _FULL_LEARNING_RATE
            object.__setattr__(self, "learning_rate", rate)
        for name, low in (
            ("epochs", 1),
            ("batch_size", 1),
            ("gradient_accumulation", 1),
            ("max_length", 2),
            ("seed", 0),
        ):
            _check_whole(name, getattr(self, name), low)
        if not isinstance(self.learning_rate, Real) or not 0 < self.learning_rate <= 1:
            raise ParameterError(
                "{name} is {value!r}, it must be a number {bounds}.",
                name="learning_rate",
                value=self.learning_rate,
                bounds="above 0 and at most 1",
            )
        check_choice("optimizer", self.optimizer, ("auto", *OPTIMIZERS))


def _check_whole(name: str, value: int | None, low: int) -> None:
    if value is not None and (not isinstance(value, int) or not low <= value < 2**32):
        raise ParameterError(
            "{name} is {value!r}, it must be a whole number {bounds}.",
            name=name,
            value=value,
            bounds=f"from {low} to {2**32 - 1}",
        )
