"""The control groups of this process, which may limit its memory and CPU time.

See the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_V2_MOUNTS = ("sys/fs/cgroup", "sys/fs/cgroup/unified")


class Group(NamedTuple):
    """The folder of a control group and the version of its interface: 1 or 2."""

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """Return the text of the group's file `name`; empty if there is none."""
        return read_system(self.folder / name).strip()


def control_groups(controller: str, root: Path) -> Iterator[Group]:
    """Yield the groups in which `controller` limits this process: its own and their parents.

    In a container the path may be the host's, of which only the mount itself is visible: missing
    files read as empty.
    """
    for line in read_system(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts: tuple[str, ...] = _V2_MOUNTS
        if controllers:  # a mount for several controllers may have no link for each
            mounts = tuple(f"sys/fs/cgroup/{n}" for n in dict.fromkeys((controller, controllers)))
        for mount in mounts:
            group = root / mount / path.lstrip("/")
            for folder in (group, *group.parents):
                yield Group(folder, 1 if controllers else 2)
                if folder == root / mount:
                    break


def read_system(path: Path) -> str:
    """Read a file of the kernel; returns an empty string if that is not possible."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
