"""The network between the nodes of a Ray cluster is cut: nothing is lost or written twice."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from issun.cluster.batch import BatchOptions, run_batch
from tests.cluster.conftest import COMMAND, Run, make_rows, write_rows
from tests.needs import linux

pytest.importorskip("ray", reason="needs Ray: make cluster")
pytestmark = [linux, pytest.mark.slow]
RAY = Path(sys.executable).with_name("ray")
STORE = "83886080"  # bytes, the smallest that Ray accepts
HEAD, OTHER = 1, 2  # the hosts


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Network:
    """Two hosts in network namespaces of their own, joined by a cable.

    Each host has a folder /tmp/ray of its own, since Ray finds other nodes of its machine there.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._name = f"issun-{os.getpid()}"
        self.environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
        }
        for host in (HEAD, OTHER):
            ip("netns", "add", self._namespace(host))
            stack.callback(self._remove, host)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", self._namespace(OTHER))
        ip("link", "add", "eth0", "netns", self._namespace(HEAD), *peer)
        for host in (HEAD, OTHER):
            name = self._namespace(host)
            ip("-n", name, "addr", "add", f"{address(host)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", name, "link", "set", device, "up")

    def command(self, host: int, *command: str) -> list[str]:
        """The command on a host."""
        own = self._folder / f"ray{host}"
        own.mkdir(exist_ok=True)
        inside = f'mkdir -p /tmp/ray && mount --bind {own} /tmp/ray && exec "$@"'
        name = self._namespace(host)
        return ["ip", "netns", "exec", name, "unshare", "-m", "sh", "-c", inside, "sh", *command]

    def start_ray(self, host: int) -> None:
        """Start a node of one CPU; returns when it is part of the cluster."""
        where = ["--address", f"{address(HEAD)}:6399"]
        if host == HEAD:
            where = ["--head", "--port", "6399", "--include-dashboard=false"]
        own = ["--node-ip-address", address(host), "--num-cpus", "1"]
        command = [str(RAY), "start", *where, *own, "--object-store-memory", STORE]
        subprocess.run(
            self.command(host, *command),
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,  # what it starts would hold a pipe open
            stderr=subprocess.DEVNULL,
            timeout=120,
        )

    def processes(self, host: int) -> list[psutil.Process]:
        """All processes of a host."""
        listed = ["ip", "netns", "pids", self._namespace(host)]
        pids = {int(pid) for pid in subprocess.check_output(listed, text=True).split()}
        return [process for process in psutil.process_iter(["cmdline"]) if process.pid in pids]

    def is_answering(self, host: int) -> bool:
        """Whether a worker of the host has rows."""
        commands = [process.info["cmdline"] or [""] for process in self.processes(host)]
        return any(command[0].startswith("ray::_Actor.answer") for command in commands)

    def set_cable(self, state: str) -> None:
        """Cut the cable ("down") or join it again ("up"); no process ends by that."""
        ip("-n", self._namespace(HEAD), "link", "set", "eth0", state)

    def _namespace(self, host: int) -> str:
        return f"{self._name}-{host}"

    def _remove(self, host: int) -> None:
        """End what runs on a host, and remove it."""
        for process in self.processes(host):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        ip("netns", "del", self._namespace(host))


def address(host: int) -> str:
    return f"10.77.0.{host}"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network with a node of Ray on each host; skips where namespaces are not allowed."""
    with ExitStack() as stack:
        try:
            network = Network(tmp_path, stack)
        except OSError as error:
            pytest.skip(f"needs ip: {error}")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs the right to make network namespaces: {error.stderr.strip()}")
        for host in (HEAD, OTHER):
            network.start_ray(host)
        yield network


@pytest.mark.parametrize("seconds", [10, None])
def test_a_cut_cable(tmp_path: Path, network: Network, exact: Path, seconds: int | None) -> None:
    """The cable is cut while the other host answers rows, and is joined so much later, or never."""
    source = write_rows(tmp_path / "in.jsonl", make_rows(1000, 40))
    expected, target = tmp_path / "expected.jsonl", tmp_path / "out.jsonl"
    run_batch(BatchOptions(source=source, target=expected, bundle=exact, workers=2))
    command = network.command(HEAD, *COMMAND, "--ray", f"{address(HEAD)}:6399", "--slots", "4")
    run = Run(source, "-o", target, "--bundle", exact, command=command, env=network.environment)
    while run.running and not network.is_answering(OTHER):
        time.sleep(0.1)
    run.wait_for(tmp_path / "out.jsonl.journal", 60)
    assert run.running
    network.set_cable("down")
    assert network.is_answering(OTHER)
    if seconds:
        time.sleep(seconds)
        network.set_cable("up")
    code, err = run.end()
    assert code == 0, err
    assert target.read_bytes() == expected.read_bytes()
