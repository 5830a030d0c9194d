"""Workers that take short turns, so that all of them meet the same machine.

A virtual or a warm machine changes its speed from minute to minute. Engines measured one behind the
other meet different machines, and the ratio of two says little; measured in turns they share them.
Who does not have the turn is stopped, and that time is no part of what it measures. In decoding,
whose steps are told, who has done the fewest goes next: were all to get as many turns, the fast
would be done while the slow have hardly begun, and meet another machine than they.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen
from typing import IO, Any, cast

import psutil

from issun.benchmarks.memory import read_lines

TURN = 0.1  # seconds: in some tenths a machine changes, in a thousandth caches fill again


class Player:
    """A worker that waits before each of its tests, and is stopped while others have the turn.

    `waits` names the test that it would begin, `alone` says that this one must not be stopped;
    `steps` is how much of its test it has told of, `lines` are its measurements so far. At its end
    `waits` is empty and `exit_code` is set.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start it; returns when it waits for its first test, or has ended."""
        self.lines: list[dict[str, Any]] = []
        self.waits, self.alone = "", False
        self.steps = 0
        self.exit_code: int | None = None
        self._pauses: list[tuple[float, float]] = []
        self._stopped: float | None = None
        self._told: SimpleQueue[str] = SimpleQueue()
        self._complaints: deque[str] = deque(maxlen=50)
        self._process = Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, encoding="utf-8"
        )
        read_lines(self._pipe("stdout"), self._told.put, at_end=partial(self._told.put, ""))
        self._stderr = read_lines(self._pipe("stderr"), self._complaints.append)
        self.works()

    def _pipe(self, name: str) -> IO[str]:
        return cast("IO[str]", getattr(self._process, name))

    @property
    def complaint(self) -> str:
        """The end of its stderr."""
        return "".join(self._complaints)

    def begin(self) -> None:
        """Let it begin the test that it waits for, as soon as it has the turn."""
        self._pauses.clear()
        self.steps = 0
        with suppress(BrokenPipeError):
            print(file=self._pipe("stdin"), flush=True)

    def works(self, seconds: float | None = None) -> bool:
        """Let it work for so long, without a limit if None; False when its test goes on still."""
        ends = None if seconds is None else time.perf_counter() + seconds
        while True:
            left = None if ends is None else max(0.0, ends - time.perf_counter())
            try:
                line = self._told.get(timeout=left)
            except Empty:
                return False
            if not line:
                self.waits, self.exit_code = "", self._process.wait()
                self._stderr.join()
                return True
            content = json.loads(line)
            if "waits" in content:
                self.waits, self.alone = content["waits"], content["alone"]
                return True
            if "steps" in content:
                self.steps = content["steps"]
                continue
            if "times" in content:
                content["seconds"] = running_seconds(content.pop("times"), self._pauses)
            self.lines.append(content)

    def stop(self) -> None:
        """Take the turn away."""
        if self.exit_code is None:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).suspend()
            self._stopped = time.perf_counter()

    def go_on(self) -> None:
        """Give the turn back."""
        if self.exit_code is None and self._stopped is not None:
            self._pauses.append((self._stopped, time.perf_counter()))
            self._stopped = None
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).resume()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self.exit_code is None:
            self._process.kill()
            self._process.wait()
        for name in ("stdin", "stdout", "stderr"):
            with suppress(BrokenPipeError):
                self._pipe(name).close()


def running_seconds(times: Sequence[float], pauses: Sequence[tuple[float, float]]) -> list[float]:
    """From each of `times` to the next, less what `pauses` (from, until) take of it."""

    def paused(start: float, end: float) -> float:
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in pauses)

    return [end - start - paused(start, end) for start, end in pairwise(times)]


def take_turns(players: Sequence[Player], say: Callable[[str], object]) -> None:
    """Run all tests of `players` to their ends, the same test of all of them at the same time."""
    while alive := [player for player in players if player.exit_code is None]:
        test, alone = alive[0].waits, alive[0].alone
        say(test)
        same = [player for player in alive if player.waits == test]
        if alone or len(same) == 1:
            for player in same:
                player.begin()
                player.works()
        else:
            _share(same)


def _share(players: Sequence[Player]) -> None:
    """Pass the turn on until all have done their test, side by side."""
    for player in players:
        player.stop()
        player.begin()
    line = list(players)
    while line:
        player = min(line, key=lambda waiting: waiting.steps)  # of several, who waits longest
        line.remove(player)
        player.go_on()
        if not player.works(TURN if line else None):
            line.append(player)
        player.stop()  # also behind its test: threads that spin on would take from the next turn
    for player in players:
        player.go_on()
