"""The network between the nodes of a Ray cluster is cut: nothing is lost or written twice."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from issun.cluster.batch import BatchOptions, run_batch
from tests.cluster.conftest import COMMAND, Run, make_rows, write_rows
from tests.needs import linux

pytest.importorskip("ray", reason="needs Ray: make cluster")
pytestmark = [
    linux,
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs root and ip for network namespaces",
    ),
]
RAY = Path(sys.executable).with_name("ray")
STORE = "83886080"  # bytes, the smallest that Ray accepts


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """Three hosts in network namespaces of their own, joined by a switch in a fourth one.

    Each host has a folder /tmp/ray of its own, since Ray finds other nodes of its machine there.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._name = folder, f"issun-{os.getpid()}"
        token = secrets.token_hex(16)
        self.environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
        }
        switch = self._make("switch", stack)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host in range(1, 4):
            name = self._make(str(host), stack)
            peer = ("type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "add", f"port{host}", "netns", switch, *peer)
            ip("-n", switch, "link", "set", f"port{host}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{host}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", name, "link", "set", device, "up")

    def _make(self, part: str, stack: ExitStack) -> str:
        name = f"{self._name}-{part}"
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        return name

    def command(self, host: int, *command: str) -> list[str]:
        """The command on a host."""
        own = self.folder / f"ray{host}"
        own.mkdir(exist_ok=True)
        inside = f'mkdir -p /tmp/ray && mount --bind {own} /tmp/ray && exec "$@"'
        name = f"{self._name}-{host}"
        return ["ip", "netns", "exec", name, "unshare", "-m", "sh", "-c", inside, "sh", *command]

    def cut(self, host: int) -> None:
        """Cut a host's cable; no process ends by that."""
        ip("-n", f"{self._name}-switch", "link", "set", f"port{host}", "down")

    def start_ray(self, host: int, stack: ExitStack) -> None:
        """Start a node, and for host 1 the head."""
        address = f"10.77.0.{host}"
        where = ["--head", "--port", "6399", "--include-dashboard=false", "--num-cpus", "0"]
        if host > 1:
            where = ["--address", "10.77.0.1:6399", "--num-cpus", "1"]
        common = ["--node-ip-address", address, "--block", "--object-store-memory", STORE]
        process = subprocess.Popen(
            self.command(host, str(RAY), "start", *where, *common),
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(self._end, host)

    def _end(self, host: int) -> None:
        listed = ["ip", "netns", "pids", f"{self._name}-{host}"]
        for pid in subprocess.check_output(listed, text=True).split():
            subprocess.run(["kill", "-9", pid], check=False, capture_output=True)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        network = Network(tmp_path, stack)
        for host in (1, 2, 3):
            network.start_ray(host, stack)
            time.sleep(8)  # `ray start --block` does not report that it is ready
        yield network


def test_a_cut_cable(tmp_path: Path, network: Network, exact: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", make_rows(400, 40))
    expected, target = tmp_path / "expected.jsonl", tmp_path / "out.jsonl"
    run_batch(BatchOptions(source=source, target=expected, bundle=exact, workers=2))
    command = network.command(1, *COMMAND, "--ray", "10.77.0.1:6399", "--slots", "4")
    run = Run(source, "-o", target, "--bundle", exact, command=command, env=network.environment)
    run.wait_for(tmp_path / "out.jsonl.journal", 60)
    assert run.running
    network.cut(3)
    code, err = run.end()
    assert code == 0, err
    assert target.read_bytes() == expected.read_bytes()
