"""Hyperparameters of a fine-tuning; without LoRA, the defaults are those of the published model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from issun.runtime.errors import check_choice, check_range, check_switch, check_texts

# issun's names -> those of transformers' Trainer.
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_bnb_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
}


_MAX_WHOLE = 2**32 - 1
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
        check_range("rank", self.rank, Integral, 1, _MAX_WHOLE)
        if self.alpha is None:
            object.__setattr__(self, "alpha", 2 * self.rank)
        check_range("alpha", self.alpha, Integral, 1, _MAX_WHOLE)
        check_texts("target_modules", self.target_modules)


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
        for name in ("epochs", "batch_size", "gradient_accumulation"):
            check_range(name, getattr(self, name), Integral, 1, _MAX_WHOLE)
        if self.max_length is not None:
            check_range("max_length", self.max_length, Integral, 2, _MAX_WHOLE)
        check_range("seed", self.seed, Integral, 0, _MAX_WHOLE)
        check_range("learning_rate", self.learning_rate, Real, 0, 1, exclusive=True)
        check_switch("truncate", self.truncate)
        check_choice("optimizer", self.optimizer, ("auto", *OPTIMIZERS))
