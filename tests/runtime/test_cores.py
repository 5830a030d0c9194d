"""Threads: one for each fast core that the process may use, as Linux tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.runtime import cores
from issun.runtime.cores import physical_cores

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="these are Linux's files")


def machine(folder: Path, cores: list[str], capacities: list[int] | None = None) -> None:
    """Write the files of a machine whose cores have these lists of logical CPUs."""
    for place, core in enumerate(cores):
        for cpu in core.split(","):
            cpu_folder = folder / "system" / "cpu" / f"cpu{cpu}"
            (cpu_folder / "topology").mkdir(parents=True)
            (cpu_folder / "topology" / "thread_siblings_list").write_text(core + "\n")
            if capacities:
                (cpu_folder / "cpu_capacity").write_text(f"{capacities[place]}\n")


def allow(monkeypatch: pytest.MonkeyPatch, *cpus: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(cpus), raising=False)


def test_hyper_threads_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, ["0,4", "1,5", "2,6", "3,7"])
    allow(monkeypatch, *range(8))
    assert physical_cores(tmp_path) == 4
    allow(monkeypatch, 0, 4, 5)
    assert physical_cores(tmp_path) == 2


def test_intel_s_efficiency_cores_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, ["0,1", "2,3", "4", "5", "6", "7"])
    (tmp_path / "cpu_core").mkdir()
    (tmp_path / "cpu_core" / "cpus").write_text("0-3\n")
    allow(monkeypatch, *range(8))
    assert physical_cores(tmp_path) == 2
    allow(monkeypatch, 5, 6, 7)  # no fast one may be used
    assert physical_cores(tmp_path) == 3


def test_arm_s_little_cores_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, [str(cpu) for cpu in range(8)], [250] * 4 + [900] * 3 + [1024])
    allow(monkeypatch, *range(8))
    assert physical_cores(tmp_path) == 4


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8 if logical else 2)
    allow(monkeypatch, 0, 1, 2, 3)
    assert physical_cores(tmp_path) == 2
    allow(monkeypatch, 0)
    assert physical_cores(tmp_path) == 1


def windows(*classes: int) -> bytes:
    """Records of cores, of 48 bytes each, as 64-bit Windows gives them."""
    return b"".join(
        (0).to_bytes(4, "little") + (48).to_bytes(4, "little") + bytes([0, kind]) + bytes(38)
        for kind in classes
    )


def test_windows_s_efficiency_cores_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    for classes, count in (((1, 1, 0, 0, 0, 0), 2), ((0, 0, 0, 0), 4), ((2, 1, 1, 0), 1)):
        monkeypatch.setattr(cores, "_windows_cores", lambda found=classes: windows(*found))
        assert physical_cores() == count


def test_a_windows_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8 if logical else 2)
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr(cores, "_windows_cores", lambda: b"")
    assert physical_cores() == 2
