"""A Ray cluster of three nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

_STORE = 80 << 20  # bytes, the smallest that Ray accepts


class Nodes:
    """A head without CPUs, and two nodes of one CPU each; nodes are processes of this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add(), self.add()]
        self.address: str = self.cluster.address

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=_STORE)

    def kill_node(self, index: int) -> None:
        """Kill a node with all its workers, and start another one."""
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)
        self.nodes.append(self.add())

    def workers(self) -> list[psutil.Process]:
        """The processes of the actors."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if command.startswith("ray::_Actor"):
                found.append(process)
        return found


@contextmanager
def running_nodes() -> Iterator[Nodes]:
    """A cluster until the end of the block."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()
