"""What an export is asked for, and what a route of it must do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from issun.export.lazy import PRECISIONS, Kind
from issun.runtime.errors import ParameterError, check_choice
from issun.runtime.manifest import KV_CACHE_TYPES, KVCacheType
from issun.runtime.manifest import Precision as PrecisionInfo

Via = Literal["issun", "optimum"]


class Progress(Protocol):
    """Is told how far an export is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` bytes of the stage with this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What a bundle is to be; raises ParameterError for what cannot be made."""

    precision: Kind = "int8"
    kv_cache: KVCacheType = "float32"
    via: Via = "issun"
    calibrate: Path | None = None  # a text; the shipped one by default
    gptq: bool = False
    budget: int | None = None  # bytes of the weights; each linear gets what fits it best
    max_kl: float | None = None  # nats; each linear gets the cheapest that keeps it
    template: Path | None = None
    tokenizer: str | Path | None = None  # another folder or hub id that has it
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown names and combinations."""
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("kv_cache", self.kv_cache, KV_CACHE_TYPES),
            ("via", self.via, ("issun", "optimum")),
        ):
            check_choice(name, value, known)
        if self.budget is not None and self.max_kl is not None:
            raise ParameterError("Give a budget or a largest divergence, not both.")
        if self.max_kl is not None and not 0 < self.max_kl < math.inf:
            raise ParameterError("max_kl is {value}, it must be above 0.", value=self.max_kl)
        if self.mixed and (self.gptq or self.via == "optimum"):
            raise ParameterError("A budget or a largest divergence is for issun's own rounding.")
        if self.gptq and self.precision != "int4":
            raise ParameterError("GPTQ is for int4, not for {value}.", value=self.precision)
        if self.calibrate and not self.calibrates:
            raise ParameterError(
                "There is nothing to calibrate: that is for int8, int4 and the int8 KV cache of "
                "issun's own route."
            )
        if self.via == "optimum" and (self.precision == "int4" or self.kv_cache == "int8"):
            raise ParameterError(
                "The Optimum route makes float32 and int8 with a float32 KV cache, not {value}.",
                value="int4" if self.precision == "int4" else "an int8 KV cache",
            )

    @property
    def mixed(self) -> bool:
        """True where each linear gets a precision of its own; `precision` says nothing then."""
        return self.budget is not None or self.max_kl is not None

    @property
    def calibrates(self) -> bool:
        """True where something is fitted to a text."""
        exact = (self.precision, self.kv_cache) == ("float32", "float32")
        return self.via == "issun" and (self.mixed or not exact)


@dataclass(frozen=True, slots=True)
class Written:
    """What a route has written: the graph of each KV cache type, and the precision by part."""

    graphs: dict[KVCacheType, str]
    precision: PrecisionInfo


class Route(Protocol):
    """A way from checkpoint to graph files."""

    def disk_bytes(self) -> int:
        """Disk space that the writing needs at its peak."""

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write the graphs and their data to `folder`."""
