"""How far bundles and other engines are from float32, at which size: results and their table."""

from __future__ import annotations

from pathlib import Path

import msgspec

from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import (
    Machine,
    Results,
    Status,
    check_format,
    read_content,
    rounded,
    speed,
)
from issun.runtime.files import as_utf8

FORMAT_VERSION = 1
DECODE = "decode-128"


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """On one text: mean KL divergence from float32 in nats, and share of equal top tokens."""

    kl: float
    agreement: float


class Point(msgspec.Struct, kw_only=True):
    """A bundle or another engine; `distances` are in the order of the texts.

    `size` is in bytes, of network and weights without tokenizer. `types` says which types an
    engine's matrices have, where they may differ. `decode` is in tokens per second.
    """

    name: str
    label: str
    ours: bool
    settings: str = ""
    types: str = ""
    versions: dict[str, str] = {}
    status: Status = "measured"
    reason: str = ""
    bundle: str = ""
    size: int = 0
    distances: list[Distance] = []
    decode: float | None = None


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was compared on."""

    name: str
    sha256: str
    tokens: int


class Comparison(msgspec.Struct, kw_only=True):
    """A complete comparison; `window` is the number of tokens that are read together.

    `calibration` names the text that engines were fitted to, `speeds` the run that measured
    `decode`.
    """

    format: int = FORMAT_VERSION
    date: str
    issun: str
    commit: str
    machine: Machine
    checkpoint: str
    window: int
    calibration: str
    texts: list[Text] = []
    speeds: str = ""
    points: list[Point] = []

    @property
    def measured(self) -> list[Point]:
        """The points with distances, the largest first."""
        found = [point for point in self.points if point.status == "measured"]
        return sorted(found, key=lambda point: -point.size)

    def add_speeds(self, run: Results) -> None:
        """Take decode speeds from a run.

        They are those of the bundle with the same id or, in a run of the same checkpoint, of the
        same engine.
        """
        for point in self.points:
            for engine in run.engines:
                if point.bundle:
                    same = engine.bundle == point.bundle
                else:
                    same = (run.checkpoint, engine.name) == (self.checkpoint, point.name)
                if same and (rate := speed(engine, DECODE)):
                    point.decode = rate
                    self.speeds = f"{run.checkpoint}, {run.date[:10]}, {run.machine.cpu}"


def write_comparison(path: Path, found: Comparison) -> None:
    """Write the comparison; numbers have six significant digits."""
    content = msgspec.json.encode(rounded(msgspec.to_builtins(found)))
    path.write_bytes(msgspec.json.format(content, indent=1) + b"\n")


def read_comparison(path: Path) -> Comparison:
    """Read a file from `write_comparison`; raises BenchError for anything else."""
    try:
        found = msgspec.json.decode(as_utf8(read_content(path)), type=Comparison)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BenchError(
            "{path} is not a file from `issun bench fidelity --peers`: {reason}",
            path=path,
            reason=error,
        ) from error
    check_format(path, found.format, FORMAT_VERSION)
    return found
