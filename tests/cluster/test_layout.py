"""The fastest layout: measured once for a machine and a bundle, unless it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from issun.cluster import layout as module
from issun.cluster.layout import choose_layout, measure
from issun.cluster.loading import LoadOptions
from issun.cluster.plan import Layout
from issun.runtime import BundleError
from tests.cluster.test_plan import GB, manifest

LARGE = manifest(size=1)  # packed


class Machine:
    """A machine of so many cores, whose rates are given by the threads of a worker."""

    def __init__(self, rates: dict[int, float]) -> None:
        self.rates, self.measured = rates, list[Layout]()
        self.notes: list[str] = []

    def measure(self, options: LoadOptions, layout: Layout) -> float:
        self.measured.append(layout)
        return self.rates[layout.threads]

    def choose(self, **options: Any) -> Layout:
        defaults = {"rows": 10**6, "workers": None, "threads": None, "slots": None}
        return choose_layout(
            LoadOptions(),
            options.pop("manifest", LARGE),
            notify=lambda text, **values: self.notes.append(text.format(**values)),
            **{**defaults, **options},
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Machine]:
    def make(cores: int, free: int, rates: dict[int, float]) -> Machine:
        made = Machine(rates)
        monkeypatch.setattr(module, "measure", made.measure)
        monkeypatch.setattr(module, "physical_cores", lambda: cores)
        monkeypatch.setattr(module, "free_memory", lambda: free)
        monkeypatch.setattr(
            module, "default_cache", lambda: SimpleNamespace(find=lambda manifest: tmp_path)
        )
        return made

    return make


@pytest.mark.parametrize(
    ("rates", "threads", "measured"),
    [
        ({1: 100, 2: 90}, 1, 2),
        ({1: 100, 2: 110, 4: 105}, 2, 3),
        ({1: 100, 2: 110, 4: 120, 8: 130}, 8, 4),
        ({1: 0, 2: 110, 4: 100}, 2, 3),  # a worker of the first layout has ended
    ],
)
def test_layouts_are_measured_until_one_is_slower(
    machine: Callable[..., Machine], rates: dict[int, float], threads: int, measured: int
) -> None:
    found = machine(8, 16 * GB, rates)
    assert found.choose() == Layout(8 // threads, threads, 16)
    assert len(found.measured) == measured
    assert found.notes[1] == f"workers x threads = 8 x 1: {rates[1]} tokens/s"


def test_it_is_measured_once(machine: Callable[..., Machine], tmp_path: Path) -> None:
    machine(2, 16 * GB, {1: 100, 2: 110}).choose()
    (path,) = tmp_path.iterdir()
    assert (path.name, path.read_bytes()) == ("batch-threads-float32-2-16.json", b"2")
    later = machine(2, 16 * GB, {})
    assert later.choose(rows=3) == Layout(1, 2, 16)
    assert later.notes == []


@pytest.mark.parametrize("content", [b"", b"{}", b"-1", b"0", b"3", b"\xff"])
def test_a_damaged_file_is_replaced(
    machine: Callable[..., Machine], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "batch-threads-float32-2-16.json"
    path.write_bytes(content)
    assert machine(2, 16 * GB, {1: 100, 2: 90}).choose() == Layout(2, 1, 16)
    assert path.read_bytes() == b"1"


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        ({"workers": 2}, Layout(2, 4, 16)),
        ({"threads": 2}, Layout(4, 2, 16)),
        ({"rows": 99}, Layout(8, 1, 16)),
        ({"manifest": manifest(size=0.06)}, Layout(8, 1, 16)),  # not packed
    ],
)
def test_nothing_is_measured_if_it_is_given_or_not_worthwhile(
    machine: Callable[..., Machine], tmp_path: Path, options: dict[str, Any], layout: Layout
) -> None:
    assert machine(8, 16 * GB, {}).choose(**options) == layout
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_into_the_memory_is_not_measured(
    machine: Callable[..., Machine],
) -> None:
    large = manifest(size=1, kv=0.2)  # see test_plan: 6 of 8 workers fit
    found = machine(8, 16 * GB, {1: 100, 2: 90})
    assert found.choose(manifest=large).workers == 6
    assert [layout.workers for layout in found.measured] == [6, 4]
    alone = machine(8, 4 * GB, {})
    assert alone.choose(manifest=manifest(size=1, kv=2)) == Layout(1, 8, 1)


@pytest.mark.slow
def test_real_workers_are_measured(fuji: Path) -> None:
    assert measure(LoadOptions(bundle=fuji), Layout(2, 1, 2)) > 0
    with pytest.raises(BundleError, match="There is no folder"):
        measure(LoadOptions(bundle=Path("nowhere")), Layout(1, 1, 1))
