"""Energy by RAPL, the energy counters of Intel's and AMD's CPUs, from Linux' powercap files.

Most systems let only root read them, and virtual machines rarely have them. What cannot be read or
told from idling is None, never 0. Source: the kernel's Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import msgspec

POWERCAP = Path("/sys/class/powercap")
_IDLE_SECONDS = 2.0


class Joules(msgspec.Struct, frozen=True):
    """Energy of all CPU packages and of their DRAM, in joules; None where it is unknown."""

    package: float | None = None
    dram: float | None = None

    def above(self, idle: Joules, seconds: float) -> Joules:
        """Without what an idle machine takes in `seconds`; `idle` is in watts."""
        return Joules(
            _less(self.package, idle.package, seconds), _less(self.dram, idle.dram, seconds)
        )

    def times(self, factor: float) -> Joules:
        """Multiplied by `factor`."""
        values = (None if value is None else value * factor for value in (self.package, self.dram))
        return Joules(*values)


class Reading(NamedTuple):
    """The counters in microjoules by zone, without those that cannot be read, and the time."""

    seconds: float
    counters: dict[Path, int]


class Meter:
    """The RAPL zones of this machine."""

    def __init__(self, root: Path = POWERCAP) -> None:
        """Find the zones; `intel-rapl-mmio` is left out, since it counts packages once more."""
        self._ranges: dict[str, dict[Path, int]] = {"package": {}, "dram": {}}
        for zone in sorted(root.glob("intel-rapl:*")):
            kind = _text(zone / "name").partition("-")[0]
            if kind in self._ranges:
                self._ranges[kind][zone] = _number(zone / "max_energy_range_uj") or 0

    @property
    def readable(self) -> bool:
        """Whether any zone can be read."""
        return bool(self.read().counters)

    def read(self) -> Reading:
        """All counters now."""
        zones = [zone for ranges in self._ranges.values() for zone in ranges]
        found = {zone: _number(zone / "energy_uj") for zone in zones}
        counters = {zone: value for zone, value in found.items() if value is not None}
        return Reading(time.perf_counter(), counters)

    def between(self, before: Reading, after: Reading) -> Joules:
        """The energy between two readings, in which each counter may have wrapped once.

        A kind of zone is None unless all of its zones were read both times and have moved: a part
        of the packages would look like a low consumption.
        """
        return Joules(*(self._sum(kind, before, after) for kind in ("package", "dram")))

    def _sum(self, kind: str, before: Reading, after: Reading) -> float | None:
        ranges = self._ranges[kind]
        if not ranges or not ranges.keys() <= before.counters.keys() & after.counters.keys():
            return None
        total = 0
        for zone, span in ranges.items():
            used = after.counters[zone] - before.counters[zone]
            used += span if used < 0 else 0
            if used <= 0:  # it stands still, or has wrapped at an unknown end
                return None
            total += used
        return total / 1e6

    def idle_power(self, seconds: float = _IDLE_SECONDS) -> Joules:
        """Watts of the machine while nothing is measured; waits only if counters can be read."""
        if not self.readable:
            return Joules()
        before = self.read()
        time.sleep(seconds)
        after = self.read()
        return self.between(before, after).times(1 / (after.seconds - before.seconds))


def _less(value: float | None, watts: float | None, seconds: float) -> float | None:
    if value is None or watts is None:
        return None
    above = value - watts * seconds
    return above if above > 0 else None  # less than what can be told from idling


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None
