# /// script
# dependencies = ["pexpect>=4.9", "pyte>=0.8.2"]
# ///
"""Records a conversation with `issun chat` as an animation: `python docs/making/recording.py`.

`issun` is the one on PATH. A shell runs in a terminal emulator; what is typed below is typed into
it, and what issun answers is shown as and when it came.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from animation import Moment, Run, draw

TARGET = Path(__file__).parents[1] / "images" / "chat.svg"
COLUMNS, ROWS = 90, 15
TITLE = "issun chat: the demonstration model in the package, in real time"
KEY, PAUSE, LAST = 0.07, 1.6, 3.5  # seconds between keys, after an answer, and at the end
# What is typed, what the answer must contain, and what both mean.
SCRIPT = (
    ("issun chat --seed 1", "> ", "English subtitles: start it, and talk with it."),
    (
        "日本で一番高い山は?",
        "富士山",
        "“Which is Japan's highest mountain?” — “Japan's highest mountain is Mount Fuji.”",
    ),
    ("17+8は?", "25", "“What is 17 + 8?” — “17 + 8 is 25.”"),
    ("/role あなたは侍です。", "", "A role: “You are a samurai.”"),
    (
        "世界で一番広い湖は?",
        "カスピ海でござる",
        "“Which is the world's largest lake?” — “The Caspian Sea, my lord.”",
    ),
    (
        "最初の質問は何ですか?",
        "世界で一番広い湖は?",
        "“What was my first question?” — “It was: ‘Which is the world's largest lake?’”",
    ),
)


class Screen(pyte.Screen):
    """A terminal that answers the questions that programs ask it."""

    def __init__(self, child: pexpect.spawn) -> None:
        super().__init__(COLUMNS, ROWS)
        self._child = child

    def write_process_input(self, data: str) -> None:
        """Give an answer, such as where the cursor is, to the program."""
        self._child.send(data)


class Recorder:
    """The terminal and all that it showed."""

    def __init__(self, child: pexpect.spawn) -> None:
        self._child = child
        self._screen = Screen(child)
        self._stream = pyte.Stream(self._screen)
        self._started = time.monotonic()
        self.caption = ""
        self.moments: list[Moment] = []

    def type(self, text: str) -> None:
        """Type a line key by key, and Enter."""
        for key in text:
            self._child.send(key)
            self.watch(KEY)
        self.watch(4 * KEY)
        self._child.send("\r")

    def begin(self) -> None:
        """Let the recording begin with what is on the screen now."""
        self._started = time.monotonic()
        self.moments = [self.moments[-1]._replace(time=0.0)]

    def watch(self, seconds: float) -> None:
        """Follow what the terminal shows for some time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                self._stream.feed(self._child.read_nonblocking(4096, timeout=left))
            except pexpect.TIMEOUT:
                break
            self._keep()

    def wait_for(self, text: str, *, limit: float = 60) -> None:
        """Follow until the terminal shows an answer with `text`, and a new prompt below it."""
        until = time.monotonic() + limit
        while not self._answered(text):
            if time.monotonic() > until:
                raise SystemExit(f"{text!r} did not come:\n" + "\n".join(self._screen.display))
            self.watch(0.02)

    def _answered(self, text: str) -> bool:
        above = [line for line in self._screen.display if line.strip()]
        return bool(above) and above[-1].strip() == ">" and text in "".join(above[-2:])

    def _keep(self) -> None:
        screen = self._screen
        cursor = None if screen.cursor.hidden else (screen.cursor.x, screen.cursor.y)
        lines = tuple(tuple(_runs(screen.buffer[row])) for row in range(ROWS))
        now = time.monotonic() - self._started
        self.moments.append(Moment(now, lines, cursor, self.caption))


def _runs(line: dict[int, pyte.screens.Char]) -> Iterator[Run]:
    """A line's characters in groups that look alike and are equally wide."""
    cells = [(column, line[column]) for column in range(COLUMNS)]
    wide = {column - 1 for column, cell in cells if cell.data == ""}

    def look(pair: tuple[int, pyte.screens.Char]) -> tuple[object, ...]:
        column, cell = pair
        return (cell.fg, cell.bold, column in wide, cell.data == " ")

    for (color, bold, is_wide, blank), group in groupby(
        ((column, cell) for column, cell in cells if cell.data), key=look
    ):
        found = list(group)
        if not blank:
            text = "".join(cell.data for _, cell in found)
            yield Run(found[0][0], len(found) * (1 + is_wide), text, str(color), bool(bold))


def main() -> None:
    """Hold the conversation and write the file."""
    with tempfile.TemporaryDirectory() as home:
        settings = {"HOME": home, "PS1": "$ ", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        environment = {"PATH": os.environ["PATH"], "ISSUN_CACHE": "", **settings}
        child = pexpect.spawn(
            "bash --norc --noprofile",
            env=environment,
            dimensions=(ROWS, COLUMNS),
            encoding="utf-8",
        )
        recorder = Recorder(child)
        recorder.watch(1)
        for number, (typed, expected, caption) in enumerate(SCRIPT):
            recorder.caption = caption
            recorder.type(typed)
            if number == 0:  # the first picture shows the command, not an empty terminal
                recorder.begin()
            recorder.wait_for(expected)
            recorder.watch(PAUSE)
        child.close(force=True)
    end = recorder.moments[-1].time + LAST
    TARGET.write_text(
        draw(recorder.moments, columns=COLUMNS, end=end, title=TITLE), encoding="utf-8"
    )
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB, {end:.0f} s")


if __name__ == "__main__":
    main()
