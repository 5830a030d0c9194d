"""Each example runs as it is, and answers sensibly."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import environment

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".mjs"))

# What each prints; gui.py has a test of its own, and node.mjs needs a site (tests/web).
EXPECTED = {
    "batch.py": r'"岩手県の県庁所在地は盛岡市です。"[\s\S]*オタワ[\s\S]*ナイル川[\s\S]*は27です。',
    "benchmark.py": r"load +\d+\.\d\d s\nprefill +[\d,]+ tokens/s, median of 5 \(.*\)\ndecode ",
    "conversation.py": r"琵琶湖でござる[\s\S]*13でござる[\s\S]*taken back: 最初の質問は何ですか\?",
    "first_answer.py": r"日本で一番高い山は富士山です。\n\(14 tokens, ended by stop\)",
    "own_sampler.py": r"(without: (?!.*富士山).*\n){2}(with: 日本で一番高い山は富士山です。\n){2}",
    "streaming.py": r"青い傘です。\n私は.* … \(cancelled after 5 tokens\)",
    "structured_output.py": r"南アメリカ\n21\nフランス .*パリ.*ヨーロッパ.*\nケニア .*アフリカ",
}


def run(name: str, *arguments: str | Path, cwd: Path) -> str:
    return output([sys.executable, FOLDER / name, *arguments], cwd)


def output(command: list[str | Path], cwd: Path) -> str:
    """What a command that succeeds prints."""
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment(),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_nine_and_the_readme_has_a_line_for_each() -> None:
    assert len(EXAMPLES) == 9
    assert {*EXPECTED, "gui.py", "node.mjs"} == set(EXAMPLES)
    listed = re.findall(
        r"^- \[(\w+\.(?:py|mjs))\]\(\1\): .+$", (FOLDER / "README.md").read_text("utf-8"), re.M
    )
    assert sorted(listed) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_what_it_is(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert 15 <= len(lines) <= 50
    assert lines[0].startswith(('"""', "/** "))
    assert any(line.strip().startswith(("#", "//")) for line in lines)


@pytest.mark.sampled
@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs_as_it_is(tmp_path: Path, name: str) -> None:
    if name == "structured_output.py":
        pytest.importorskip("llguidance")
    assert re.search(EXPECTED[name], run(name, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "質問 1.txt").write_text("大阪府の県庁所在地は?\n\n6×7は?\n", encoding="utf-8")
    lines = run("batch.py", "質問 1.txt", cwd=tmp_path).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"question": "大阪府の県庁所在地は?", "answer": "大阪府の府庁所在地は大阪市です。"},
        {"question": "6×7は?", "answer": "6×7は42です。"},
    ]


def test_a_benchmark_of_a_bundle(tmp_path: Path, bundle: Callable[[str], Path]) -> None:
    assert "in the answer" in run("benchmark.py", bundle("unscaled"), cwd=tmp_path)


# The window is used as a person does: a question that is stopped, and one that is answered.
_USE = """
import dataclasses, runpy, sys, time
gui = runpy.run_path(sys.argv[1])
window = gui["Window"](gui["Model"].load())

def slowly(ids, logits):
    time.sleep(0.2)
    return logits

slow = dict(temperature=0, processors=(slowly,), lookup=False)
window.chat.params = dataclasses.replace(window.chat.params, **slow)

def ask(question):
    window.entry.insert(0, question)
    window.entry.focus_force()
    window.update()
    window.entry.event_generate("<Return>")

def until(happened):
    while not happened():
        window.update()

ask("あなたは誰ですか?")
until(lambda: "私" in window.text.get("1.0", "end"))
window.button.invoke()
until(lambda: window.stream is None)
print(len(window.chat.turns), len(window.chat.turns[0].reply) < 20)
ask("日本で一番高い山は?")
ask("一つずつ答えます")  # while it answers
until(lambda: window.stream is None)
print(window.chat.turns[1].reply, len(window.chat.turns), window.entry.get())
print(window.text.get("1.0", "end"))
window.destroy()
"""


@pytest.mark.slow
def test_the_window_shows_an_answer_and_stops_one(tmp_path: Path) -> None:
    pytest.importorskip("tkinter")
    display: list[str | Path] = []
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        if not shutil.which("xvfb-run"):
            pytest.skip("there is no display, and no Xvfb")
        display = ["xvfb-run", "-a"]
    printed = output([*display, sys.executable, "-c", _USE, FOLDER / "gui.py"], tmp_path)
    stopped, answered, *shown = printed.splitlines()
    assert stopped == "1 True"
    assert answered == "日本で一番高い山は富士山です。 2 一つずつ答えます"
    assert "> 日本で一番高い山は?" in shown
    assert "日本で一番高い山は富士山です。" in shown
