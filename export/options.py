"""Options of an export, and the interface of an export route."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, Protocol

from issun.export.kinds import PRECISIONS, Uniform
from issun.runtime.errors import (
    ParameterError,
    check_choice,
    check_range,
    check_switch,
    is_finite,
)
from issun.runtime.files import user_path
from issun.runtime.manifest import KV_CACHE_TYPES, KVCacheType
from issun.runtime.manifest import Precision as PrecisionInfo

Via = Literal["issun", "optimum"]

_MAX_KL = 1000  # nats; far beyond any model


class Progress(Protocol):
    """A callback that reports the progress of an export."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `stage` are finished."""


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """A LoRA adapter, a folder or hub id, and the weight of its updates in the sum.

    Raises ParameterError for a weight that is not finite, or 0.
    """

    source: str | Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Raise ParameterError for an invalid weight."""
        if not is_finite(self.weight) or self.weight == 0:
            raise ParameterError(
                "The weight of {source} is {weight}, it must be a number other than 0.",
                source=self.source,
                weight=self.weight,
            )

    @classmethod
    def parse(cls, text: str) -> AdapterSource:
        """`DIR` or `DIR=WEIGHT`; what follows "=" belongs to the name unless it is a number."""
        name, separator, number = text.rpartition("=")
        try:
            weight = float(number) if separator and not user_path(text).is_dir() else None
        except ValueError:
            weight = None
        return cls(text) if weight is None else cls(name, weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of an export; raises ParameterError for unsupported values and combinations."""

    precision: Uniform = "int8"
    kv_cache: KVCacheType = "float32"
    via: Via = "issun"
    calibrate: Path | None = None  # a text file; the shipped text by default
    gptq: bool | None = None  # fit 4-bit weights with GPTQ; None: wherever there are any
    budget: int | None = None  # bytes of the weights; the most accurate mixed precision that fits
    max_kl: float | None = None  # nats; the smallest mixed precision within this divergence
    context: int | None = None  # tokens; the checkpoint's, up to 8,192, by default
    template: str | Path | None = None  # a file, or a shipped template's name
    tokenizer: str | Path | None = None  # a folder or hub id, if not the checkpoint's own
    draft: bool = False  # let the bundle write text, for a table of draft tokens
    adapters: tuple[AdapterSource, ...] = ()  # merged into the weights before anything else
    force: bool = False

    def __post_init__(self) -> None:
        """Raise ParameterError for invalid values."""
        self._check_values()
        if self.budget is not None and self.max_kl is not None:
            raise ParameterError("Give either a budget or max_kl, not both.")
        if self.mixed and self.via == "optimum":
            raise ParameterError("A budget or max_kl cannot be combined with Optimum.")
        if self.gptq is not None and not self._has_int4:
            raise ParameterError(
                "GPTQ is for int4 and mixed precision, not for {value}.", value=self.precision
            )
        if self.calibrate and not self.calibrates:
            raise ParameterError(
                "There is nothing to calibrate: calibration is for int8, int4 and an int8 KV "
                "cache, without Optimum."
            )
        if self.draft and (self.via == "optimum" or self.mixed or self.precision == "float32"):
            raise ParameterError(
                "Draft tokens are for int8 and int4, without Optimum, a budget or max_kl."
            )
        if self.via == "optimum" and self.adapters:
            raise ParameterError("Adapters cannot be merged with Optimum: export without --via.")
        if self.via == "optimum" and (self.precision == "int4" or self.kv_cache == "int8"):
            raise ParameterError(
                "Optimum supports float32 and int8 with a float32 KV cache, not {value}.",
                value="int4" if self.precision == "int4" else "an int8 KV cache",
            )

    def _check_values(self) -> None:
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("kv_cache", self.kv_cache, KV_CACHE_TYPES),
            ("via", self.via, ("issun", "optimum")),
        ):
            check_choice(name, value, known)
        for name in ("context", "budget"):
            if (value := getattr(self, name)) is not None:
                check_range(name, value, Integral, 1, math.inf)
        if self.max_kl is not None:
            check_range("max_kl", self.max_kl, Real, 0, _MAX_KL, exclusive=True)
        for name in ("draft", "force"):
            check_switch(name, getattr(self, name))
        if self.gptq is not None:
            check_switch("gptq", self.gptq)

    @property
    def mixed(self) -> bool:
        """True if each linear layer gets its own precision; `precision` is then ignored."""
        return self.budget is not None or self.max_kl is not None

    @property
    def fitted(self) -> bool:
        """True if GPTQ fits the 4-bit weights."""
        return self._has_int4 and self.gptq is not False

    @property
    def _has_int4(self) -> bool:
        return self.mixed or self.precision == "int4"

    @property
    def calibrates(self) -> bool:
        """True if the export needs a calibration text."""
        exact = (self.precision, self.kv_cache) == ("float32", "float32")
        return self.via == "issun" and (self.mixed or not exact)


@dataclass(frozen=True, slots=True)
class Written:
    """The written graph for each KV cache type, and the precision for the manifest."""

    graphs: dict[KVCacheType, str]
    precision: PrecisionInfo


class Route(Protocol):
    """A way to export a checkpoint to graph files."""

    def disk_bytes(self) -> int:
        """Disk space that an export needs at its peak."""

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write the graphs and their data to `folder`."""
