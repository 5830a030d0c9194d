"""An adapter to load with a bundle, and how the command line writes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from issun.runtime.errors import AdapterError, ParameterError, is_finite
from issun.runtime.files import user_path
from issun.runtime.manifest import Manifest
from issun.runtime.weights.adapter_file import AdapterFile

_NAME = re.compile(r"[\w.-]+")  # what a model's name may have behind its colon


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter file that `issun adapter` wrote, the name to choose it by, and its weight.

    The name is the file's by default, without its suffix. Raises ParameterError for a weight that
    is not finite and for a name that is not of letters, digits, `_`, `.` and `-`.
    """

    path: str | Path
    name: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Complete and check the name."""
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)
        if not _NAME.fullmatch(self.name):
            raise ParameterError(
                "The adapter's name is {name!r}, it may have letters, digits, _, . and -: give "
                "it another one, as in NAME=PATH.",
                name=self.name,
            )
        if not is_finite(self.weight):
            raise ParameterError(
                "The weight of the adapter {name} is {value}, it must be a finite number.",
                name=self.name,
                value=self.weight,
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `[NAME=]PATH[=WEIGHT]` describes; raises ParameterError."""
        rest, _, last = text.rpartition("=")
        try:
            weight = float(last) if rest else 1.0
        except ValueError:
            weight = 1.0
            rest = ""
        name, _, path = (rest or text).partition("=")
        named = path and _NAME.fullmatch(name)
        return cls(path, name, weight) if named else cls(rest or text, weight=weight)


@dataclass(frozen=True, slots=True)
class OpenAdapter:
    """An adapter of a bundle whose file was checked; `id` stands for all that affects results."""

    name: str
    weight: float
    file: AdapterFile
    id: str


def open_adapters(
    adapters: Sequence[str | Path | Adapter], folder: Path, manifest: Manifest
) -> dict[str, OpenAdapter]:
    """Open the adapters of the bundle in `folder`; returns them by name.

    Raises AdapterError for a file that is missing, damaged or of another bundle, and
    ParameterError for two adapters of one name, and for one that is not in a list.
    """
    if isinstance(adapters, str | Path | Adapter):
        raise ParameterError("adapters is a single file: pass a list of files.")
    found: dict[str, OpenAdapter] = {}
    for given in adapters:
        adapter = given if isinstance(given, Adapter) else Adapter(given)
        if adapter.name in found:
            raise ParameterError(
                "There are two adapters named {name}: give one another name, as in NAME=PATH.",
                name=adapter.name,
            )
        file = AdapterFile(user_path(adapter.path))
        if file.header.bundle != manifest.bundle_id:
            raise AdapterError(
                "{path} was made for another bundle than {folder}: make one for this bundle with "
                "`issun adapter`.",
                path=file.path,
                folder=folder,
            )
        described = f"{manifest.bundle_id} {file.header.sha256} {adapter.weight}"
        identity = hashlib.sha256(described.encode()).hexdigest()[:32]
        found[adapter.name] = OpenAdapter(adapter.name, adapter.weight, file, identity)
    return found
