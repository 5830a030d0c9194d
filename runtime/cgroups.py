"""The control groups of this process, for what limits memory and CPU time.

See the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_V2_MOUNTS = ("sys/fs/cgroup", "sys/fs/cgroup/unified")


class Group(NamedTuple):
    """The folder of a control group, and the version of its interface: 1 or 2."""

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """The text of the group's file `name`; empty where there is none."""
        return read_system(self.folder / name).strip()


def control_groups(controller: str, root: Path) -> Iterator[Group]:
    """The groups whose `controller` acts on this process: its own and all around it.

    In a container the path may be that of the host, of which only the last step back, the mount
    itself, is there: files that are missing read as empty.
    """
    for line in read_system(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts: tuple[str, ...] = _V2_MOUNTS
        if controllers:  # several at one mount may lack a link for each
            mounts = tuple(f"sys/fs/cgroup/{n}" for n in dict.fromkeys((controller, controllers)))
        for mount in mounts:
            group = root / mount / path.lstrip("/")
            for folder in (group, *group.parents):
                yield Group(folder, 1 if controllers else 2)
                if folder == root / mount:
                    break


def read_system(path: Path) -> str:
    """The text of a file of the kernel's; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
