"""Energy by RAPL, from a made-up sysfs tree; what cannot be read is None, never 0."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from issun.benchmarks import energy
from issun.benchmarks.energy import Joules, Meter


def zone(root: Path, number: str, name: str, microjoules: object, span: object = 1000) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", span)):
        (folder / file).write_text(f"{value}\n")
    return folder / "energy_uj"


def test_packages_and_dram_are_summed(tmp_path: Path) -> None:
    """Two packages with 2 and 3 J, and 1 J of DRAM; cores are a part of their package."""
    first = zone(tmp_path, "0", "package-0", 0, 10**9)
    second = zone(tmp_path, "1", "package-1", 500, 10**9)
    dram = zone(tmp_path, "0:1", "dram", 7, 10**9)
    core, whole = zone(tmp_path, "0:0", "core", 0), zone(tmp_path, "2", "psys", 0)
    meter = Meter(tmp_path)
    assert meter.readable
    before = meter.read()
    for file, value in ((first, 2_000_000), (second, 3_000_500), (dram, 1_000_007)):
        file.write_text(str(value))
    core.write_text("5")
    whole.write_text("5")
    assert meter.between(before, meter.read()) == Joules(package=5.0, dram=1.0)


def test_packages_are_not_counted_twice(tmp_path: Path) -> None:
    """`intel-rapl-mmio` reads the same package in another way."""
    zone(tmp_path, "0", "package-0", 0)
    (tmp_path / "intel-rapl:0").rename(tmp_path / "intel-rapl-mmio:0")
    assert not Meter(tmp_path).readable


def test_a_counter_that_wrapped(tmp_path: Path) -> None:
    """From 900 over the end at 1,000 to 300: 400 microjoules."""
    file = zone(tmp_path, "0", "package-0", 900, 1000)
    meter = Meter(tmp_path)
    before = meter.read()
    file.write_text("300")
    assert meter.between(before, meter.read()) == Joules(package=pytest.approx(4e-4))


@pytest.mark.parametrize("content", ["", "nonsense", "-5", None])
def test_a_package_that_cannot_be_read_makes_the_sum_unknown(
    tmp_path: Path, content: str | None
) -> None:
    zone(tmp_path, "0", "package-0", 0)
    other = zone(tmp_path, "1", "package-1", 0)
    dram = zone(tmp_path, "0:1", "dram", 0)
    meter = Meter(tmp_path)
    before = meter.read()
    if content is None:
        other.unlink()
    else:
        other.write_text(content)
    dram.write_text("500")
    assert meter.between(before, meter.read()) == Joules(package=None, dram=5e-4)


@pytest.mark.parametrize(("now", "span"), [(900, 1000), (10, ""), (10, 0), (10, 500)])
def test_a_counter_that_shows_nothing_is_unknown(tmp_path: Path, now: int, span: object) -> None:
    """It stands still, or it has wrapped and where it does is unknown; another one moves."""
    stuck = zone(tmp_path, "0", "package-0", 900, span)
    moving = zone(tmp_path, "1", "package-1", 0)
    meter = Meter(tmp_path)
    before = meter.read()
    stuck.write_text(str(now))
    moving.write_text("5")
    assert meter.between(before, meter.read()) == Joules()


def test_a_machine_without_counters(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        meter = Meter(root)
        started = time.monotonic()
        assert meter.idle_power(30) == Joules()
        assert time.monotonic() - started < 10  # there is nothing to wait for
        assert meter.between(meter.read(), meter.read()) == Joules()


def test_idle_power_is_in_watts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 J in 2 s."""
    file = zone(tmp_path, "0", "package-0", 0, 10**9)
    now = iter([10.0, 10.0, 12.0])
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(energy.time, "sleep", lambda seconds: file.write_text("30000000"))
    assert Meter(tmp_path).idle_power() == Joules(package=15.0)


def test_idling_is_taken_out_and_unknown_stays_unknown() -> None:
    used = Joules(package=10.0, dram=4.0)
    assert used.above(Joules(package=2.0, dram=1.0), 3.0) == Joules(package=4.0, dram=1.0)
    assert used.above(Joules(package=2.0), 3.0) == Joules(package=4.0, dram=None)
    assert Joules().above(Joules(package=1.0), 3.0) == Joules()
    assert used.above(Joules(package=9.0, dram=0.0), 3.0) == Joules(package=None, dram=4.0)
    assert Joules(package=6.0).times(0.5) == Joules(package=3.0)
