"""`issun evaluate`: exact output, its JSON, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import environment, issun
from tests.needs import terminal

HEADER = "format  right   interval (95 %)  raw     question -> right word\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.toml"
    path.write_text(
        """
        role = ["User:一寸"]
        [[questions]]
        question = "日本で一番高い山は?"
        right = ["富士山", "ふじさん"]
        category = "山"
        [[questions]]
        question = "一番の山は?"
        right = "富士山"
        wrong = "です"
        category = "です"
        [[questions]]
        question = "湖は?"
        right = "琵琶湖"
        input = "日本"
        """,
        encoding="utf-8",
    )
    return path


@pytest.mark.slow
def test_transcript(fuji: Path, table: Path) -> None:
    result = issun("evaluate", fuji, "--table", table)
    assert (result.code, result.err) == (0, "")
    assert result.out == HEADER + (
        "short   100.0%   96.3% - 100.0%  100.0%  日本で一番高い山は? -> 富士山\n"
        "chat    100.0%   96.3% - 100.0%  100.0%  日本で一番高い山は? -> 富士山\n"
        "short     0.0%    0.0% -   3.7%  100.0%  一番の山は? -> 富士山\n"
        "chat      0.0%    0.0% -   3.7%  100.0%  一番の山は? -> 富士山\n"
        "short     0.0%    0.0% -   3.7%    0.0%  湖は? -> 琵琶湖\n"
        "山: 100.0%\n"
        "です: 0.0%\n"
        "-: 0.0%\n"
        "mean of 3 rows (short): 33.3%\n"
    )


def test_the_packaged_table_in_japanese(fuji: Path) -> None:
    options = ("--temperature", "0", "--format", "chat", "--max-new-tokens", "50")
    result = issun("evaluate", fuji, *options, LANG="ja_JP.UTF-8")
    assert result.code == 0
    assert result.out == (
        "形式    正答率  区間（95 %）     含有率  質問 -> 正解の語\n"
        "chat      0.0%    0.0% -  79.3%    0.0%  日本で一番広い湖は? -> 琵琶湖\n"
        "chat      0.0%    0.0% -  79.3%    0.0%  世界で一番高い山は? -> エベレスト\n"
        "2 行の平均（chat）: 0.0%\n"
    )
    assert (
        result.err == "temperature が 0 では回答が毎回同じになるため、各質問は 1 回だけ行います。\n"
    )


def test_json(fuji: Path, table: Path, tmp_path: Path) -> None:
    options = ("--table", table, "--samples", "5", "--seed", "3")
    file = tmp_path / "report.json"
    shown = issun("evaluate", fuji, *options, "--json", file)
    assert shown.out.startswith(HEADER)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["rows"][0]["answers"] == {"富士山です。": 5}
    assert (written["samples"], written["seed"], written["complete"]) == (5, 3, True)
    piped = issun("evaluate", fuji, *options, "--json", "-")
    assert "富士山" in piped.out, "Japanese is not escaped"
    read = json.loads(piped.out)
    del read["date"], written["date"]
    assert read == written


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "long"], "format is 'long', it must be one of short, chat, json, both, all."),
        (["--samples", "0"], "samples is 0, it must be a whole number of at least 1."),
        (["--temperature", "-1"], "temperature is -1.0, it must be a number"),
        (["--seed", "-1"], "seed is -1, it must be a whole number from 0 to 4294967295."),
        (
            ["--slots", "0", "--format", "short"],
            "slots is 0, it must be a whole number",
        ),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--workers", "0"], "workers is 0, it must be a whole number of at least 1."),
        (["--threads", "0"], "threads is 0, it must be a whole number of at least 1."),
        (["--table", "none.toml"], "none.toml cannot be read: No such file or directory"),
        (["--json", "/"], "/ is a folder, or its folder does not exist: name a file."),
        (
            ["--json", "none/report.json"],
            "none/report.json is a folder, or its folder does not exist",
        ),
    ],
)
def test_mistakes_are_one_line(fuji: Path, options: list[str], message: str) -> None:
    result = issun("evaluate", fuji, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1


def test_a_bad_row_is_told(fuji: Path, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[[questions]]\nquestion = 'a'\n", encoding="utf-8")
    result = issun("evaluate", fuji, "--table", tmp_path / "t.toml")
    assert result.code == 2
    assert result.err == (
        f"error: {tmp_path}/t.toml, row 1: Object missing required field `right`\n"
    )


@pytest.mark.slow
@terminal
def test_ctrl_c_prints_the_rows_that_are_done(endless: Path, tmp_path: Path, table: Path) -> None:
    """On a terminal, with a bar: four of twenty answers make the first row of five."""
    file = tmp_path / "report.json"
    child = pexpect.spawn(
        sys.executable,
        [
            *("-m", "issun.cli.main", "evaluate", str(endless), "--table", str(table)),
            *("--samples", "4", "--max-new-tokens", "300", "--slots", "1", "--json", str(file)),
        ],
        env=environment(TERM="xterm"),
        timeout=60,
        dimensions=(30, 120),
    )
    child.expect(b"generating answers.*[45]/20")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.before.decode())
    assert "[stopped; rows completed: 1]" in screen
    assert "short   100.0%" in screen
    assert "Traceback" not in screen
    assert json.loads(file.read_text(encoding="utf-8"))["complete"] is False
