"""Hyperparameters of a fine-tuning; the defaults are those of the published model."""

from __future__ import annotations

from dataclasses import dataclass

from issun.runtime.errors import ParameterError, check_choice

# issun's names -> those of transformers' Trainer.
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_bnb_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters of a fine-tuning; raises ParameterError for invalid values.

    `batch_size` is in records per device. `max_length` is in tokens, by default the model's
    context; a longer record is an error unless `truncate` is set.
    """

    epochs: int = 4
    learning_rate: float = 1e-7
    batch_size: int = 8
    gradient_accumulation: int = 1
    max_length: int | None = None
    truncate: bool = False
    optimizer: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ParameterError for values out of range and unknown names."""
        for name, low in (
            ("epochs", 1),
            ("batch_size", 1),
            ("gradient_accumulation", 1),
            ("max_length", 2),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value < 2**32:
                raise ParameterError(
                    "{name} is {value!r}, it must be a whole number {bounds}.",
                    name=name,
                    value=value,
                    bounds=f"from {low} to {2**32 - 1}",
                )
        if not 0 < self.learning_rate <= 1:
            raise ParameterError(
                "{name} is {value!r}, it must be a number {bounds}.",
                name="learning_rate",
                value=self.learning_rate,
                bounds="above 0 and at most 1",
            )
        check_choice("optimizer", self.optimizer, ("auto", *OPTIMIZERS))
