"""Prepares the constraints of one model, until that is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from issun.runtime.constraint.effort import ActiveSchemas, Effort
from issun.runtime.errors import ParameterError

if TYPE_CHECKING:
    from issun.runtime.constraint.constraints import Constraints


class Preparation:
    """Owns what a model's constraints share: their compiler, and the limits on preparing them."""

    def __init__(self, make: Callable[[], Constraints]) -> None:
        """`make` starts the compiler, which most programs never need."""
        self._make = make
        self._stopped = threading.Event()
        self._active_schemas = ActiveSchemas()

    @cached_property
    def constraints(self) -> Constraints:
        """The constraints; raises ParameterError if llguidance (the extra `server`) is missing."""
        try:
            return self._make()
        except ModuleNotFoundError as error:
            raise ParameterError(
                'Constrained answers need {module}: pip install "issun[server]"',
                module=error.name,
            ) from error

    def effort(self) -> Effort:
        """Return the limits on preparing one schema."""
        return Effort(self._stopped.is_set, self._finds, self._active_schemas)

    def _finds(self, pattern: str, text: str) -> bool:
        return self.constraints.finds(pattern, text)  # on first use: few schemas need llguidance

    def stop(self) -> None:
        """Stop compiling; callers that are waiting get BusyError."""
        self._stopped.set()
        if "constraints" in vars(self):
            self.constraints.close()

    def resume(self) -> None:
        """Allow constraints to be compiled again."""
        self._stopped = threading.Event()
        vars(self).pop("constraints", None)
