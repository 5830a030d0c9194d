"""Threads: one per fast core that the process may use, as reported by the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from issun.runtime.weights import cores
from issun.runtime.weights.cores import physical_cores

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
    assert physical_cores(tmp_path, tmp_path) == 4
    allow(monkeypatch, 0, 4, 5)
    assert physical_cores(tmp_path, tmp_path) == 2


def test_intel_s_efficiency_cores_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, ["0,1", "2,3", "4", "5", "6", "7"])
    (tmp_path / "cpu_core").mkdir()
    (tmp_path / "cpu_core" / "cpus").write_text("0-3\n")
    allow(monkeypatch, *range(8))
    assert physical_cores(tmp_path, tmp_path) == 2
    allow(monkeypatch, 5, 6, 7)  # no fast core may be used
    assert physical_cores(tmp_path, tmp_path) == 3


def test_arm_s_little_cores_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, [str(cpu) for cpu in range(8)], [250] * 4 + [900] * 3 + [1024])
    allow(monkeypatch, *range(8))
    assert physical_cores(tmp_path, tmp_path) == 4


def test_a_system_that_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8 if logical else 2)
    allow(monkeypatch, 0, 1, 2, 3)
    assert physical_cores(tmp_path, tmp_path) == 2
    allow(monkeypatch, 0)
    assert physical_cores(tmp_path, tmp_path) == 1


def windows(*classes: int) -> bytes:
    """Return records of cores, of 48 bytes each, in the format of 64-bit Windows."""
    return b"".join(
        (0).to_bytes(4, "little") + (48).to_bytes(4, "little") + bytes([0, kind]) + bytes(38)
        for kind in classes
    )


def test_windows_s_efficiency_cores_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    for classes, count in (((1, 1, 0, 0, 0, 0), 2), ((0, 0, 0, 0), 4), ((2, 1, 1, 0), 1)):
        monkeypatch.setattr(cores, "_windows_cores", lambda found=classes: windows(*found))
        assert physical_cores() == count


def test_windows_without_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8 if logical else 2)
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr(cores, "_windows_cores", lambda: b"")
    assert physical_cores() == 2


V1, V2 = "sys/fs/cgroup/cpu", "sys/fs/cgroup"


def group(root: Path, path: str, quota: str) -> None:
    """Write the files of a control group: "quota period" in microseconds."""
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    if path.startswith(V1):
        for name, value in zip(("quota", "period"), quota.split(), strict=True):
            (folder / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    else:
        (folder / "cpu.max").write_text(f"{quota}\n")


@pytest.mark.parametrize(
    ("groups", "quotas", "count"),
    [
        ("", {}, 8),
        ("0::/\n", {}, 8),
        ("0::/\n", {V2: "200000 100000"}, 2),  # a container with a namespace of its own
        ("0::/a\n", {f"{V2}/a": "max 100000"}, 8),
        ("0::/a\n", {f"{V2}/a": "150000 100000"}, 2),  # rounded up
        ("0::/a\n", {f"{V2}/a": "1000 100000"}, 1),
        ("0::/a\n", {f"{V2}/a": "300001 100000"}, 4),
        ("0::/a\n", {f"{V2}/a": "120000 40000"}, 3),
        ("0::/a\n", {f"{V2}/a": "6400000 100000"}, 8),  # no more than there are
        ("0::/a/b/c\n", {f"{V2}/a/b/c": "max 100000", f"{V2}/a": "300000 100000"}, 3),
        ("0::/a/b\n", {f"{V2}/a/b": "500000 100000", f"{V2}/a": "200000 100000"}, 2),
        ("0::/a/b\n", {f"{V2}/a/b": "200000 100000", f"{V2}/a": "500000 100000"}, 2),
        ("0::/a\n", {f"{V2}/b": "100000 100000"}, 8),  # another process's
        ("0::/a\n", {f"{V2}/unified/a": "250000 100000"}, 3),
        ("0::/host/path\n", {V2: "300000 100000"}, 3),  # the host's path, within a container
        ("0::/a\n", {f"{V2}/a": "nonsense"}, 8),
        ("0::/a\n", {f"{V2}/a": "0 100000"}, 8),
        ("4:cpu:/d\n0::/\n", {f"{V1}/d": "250000 100000"}, 3),
        ("4:cpu,cpuacct:/d\n", {f"{V1}/d": "-1 100000", V1: "200000 100000"}, 2),
        ("4:cpu,cpuacct:/d\n", {f"{V1},cpuacct/d": "100000 50000"}, 2),
        ("4:cpuacct,cpu:/d\n", {f"{V1}/d": "100000 100000"}, 1),
        ("4:cpuset:/d\n5:cpuacct:/d\n", {f"{V1}/d": "100000 100000"}, 8),
        ("4:cpu:/docker/1f\n", {V1: "50000 100000"}, 1),
    ],
)
def test_a_cpu_quota_limits_the_threads(
    groups: str, quotas: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path / "devices", [str(cpu) for cpu in range(8)])
    allow(monkeypatch, *range(8))
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    for path, quota in quotas.items():
        group(tmp_path, path, quota)
    assert physical_cores(tmp_path / "devices", tmp_path) == count


def test_the_quota_of_a_real_control_group() -> None:
    """Create a group with a quota of 1.5 CPUs and run a process in it."""
    version_1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists()
    folder = Path("/sys/fs/cgroup/cpu" if version_1 else "/sys/fs/cgroup") / f"issun-{os.getpid()}"
    asked = "from issun.runtime.weights.cores import physical_cores; print(physical_cores())"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        for quota, most in ((150_000, 2), (50_000, 1)):
            try:
                if version_1:
                    (folder / "cpu.cfs_quota_us").write_text(f"{quota}")
                else:
                    (folder / "cpu.max").write_text(f"{quota} 100000")
            except OSError as error:
                pytest.skip(f"the group takes no quota: {error}")
            inside = f"echo $$ > {folder}/cgroup.procs && exec '{sys.executable}' -c '{asked}'"
            done = subprocess.run(["sh", "-c", inside], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (0, f"{min(most, physical_cores())}\n"), done
    finally:
        folder.rmdir()
