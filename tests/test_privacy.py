"""No data leaves this machine; only the cache, history and output are written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

strace = shutil.which("strace")
pytestmark = pytest.mark.skipif(strace is None, reason="strace is not installed")

_CALLS = "trace=connect,sendto,sendmsg,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
_INTERNET = re.compile(r"sa_family=AF_INET6?,.*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\"")
_WRITTEN = re.compile(r'(?:openat\(\S+, |creat\()"([^"]+)",? ?(.*)')
_MADE = re.compile(r'(?:mkdir\(|mkdirat\(\S+, )"([^"]+)".*= 0$')


class Watched:
    """Runs issun under strace with its own home folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.log = folder, folder / "home", folder / "strace.log"
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ISSUN_", "ORT_"))}
        self._environment = kept | {
            "HOME": str(self.home),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "issun", *arguments]
        return subprocess.Popen(
            [str(strace), "-f", "-qq", "-e", _CALLS, "-o", str(self.log), *command],
            cwd=self.folder / "work",
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, said: str = "") -> None:
        process = self.start(*arguments)
        _, errors = process.communicate(said.encode(), timeout=300)
        assert process.returncode == 0, errors.decode()

    def check(self) -> None:
        """Fail for an address other than loopback, or a file outside cache, history and output."""
        outside, written = set(), set()
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            outside |= {a for a in _INTERNET.findall(line) if a not in ("127.0.0.1", "::1")}
            if (made := _MADE.search(line)) or (
                (made := _WRITTEN.search(line)) and re.search("O_WRONLY|O_RDWR|O_CREAT", line)
            ):
                written.add(made[1])
        own = (
            self.home / ".cache" / "issun",
            self.home / ".local" / "state" / "issun",
            self.home / ".local" / "share" / "issun",
            self.folder / "tmp",
            self.folder / "work",
        )
        foreign = {
            path
            for path in written
            if path.startswith("/")
            and not path.startswith(("/dev/", "/proc/", *map(str, own)))
            and Path(path) not in {parent for folder in own for parent in folder.parents}
        }
        assert (outside, foreign) == (set(), set())
        left = [path for path in self.home.rglob("*") if path.is_file()]
        assert [p for p in left if not any(p.is_relative_to(folder) for folder in own)] == []


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_chat(watched: Watched) -> None:
    watched.run("chat", said="日本で一番高い山は?\n/save talk.json\n")
    watched.check()


def test_generate(watched: Watched) -> None:
    watched.run("generate", "--instruction", "日本で一番高い山は?", "--choices", "富士山")
    watched.check()


def test_export_and_inspect(watched: Watched, checkpoint: Callable[[str], Path]) -> None:
    source = checkpoint("unscaled")
    watched.run("export", str(source), "-o", "b8")
    watched.check()
    watched.run("inspect", "b8", "--verify")
    watched.check()


@pytest.mark.slow
def test_bench_and_its_report(watched: Watched) -> None:
    options = ["--prefill", "8", "--decode", "0", "--new-tokens", "4", "--rounds", "1"]
    embedded = str(Path(__file__).parents[1] / "runtime" / "embedded")
    watched.run("bench", embedded, *options, "--no-turn", "--memory", "none", "-o", "all.json")
    watched.check()
    watched.run("bench", "report", "all.json", "-o", "report")
    watched.check()


def test_serve(watched: Watched) -> None:
    process = watched.start("serve", "--port", "0")
    assert process.stderr is not None
    address = wait_for(process.stderr.readline, re.compile(rb"http://127\.0\.0\.1:\d+"))
    assert httpx.get(f"{address}/health").status_code == 200
    time.sleep(3)  # telemetry would be sent some seconds after the start
    # strace does not forward signals; its child is the server.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
    os.kill(int(children.split()[0]), signal.SIGTERM)
    assert process.wait(30) == 0
    watched.check()


def wait_for(read: Callable[[], bytes], wanted: re.Pattern[bytes]) -> str:
    for line in iter(read, b""):
        if found := wanted.search(line):
            return found[0].decode()
    pytest.fail("the server has not said where it is")
