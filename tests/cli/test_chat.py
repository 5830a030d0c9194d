"""`issun chat` with a pipe: exact transcripts."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.cli import chat
from issun.cli.options import SAMPLING, stdin_error, with_sampling
from issun.runtime import Conversation, ConversationError, Model, ParameterError
from tests.cli.conftest import environment, issun
from tests.needs import bash, has_mode


def test_one_answer_a_line_on_stdout(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="日本で一番高い山は?\n\n   \n世界で一番高い山は?\n")
    assert result.out == "富士山です。\n富士山です。\n"
    assert result.err == ""
    assert result.code == 0


def test_last_line_may_lack_its_newline(fuji: Path) -> None:
    assert issun("chat", fuji, stdin="山は?".encode()).out == "富士山です。\n"


def test_commands(fuji: Path, tmp_path: Path) -> None:
    saved = tmp_path / "会話.json"
    script = f"""山は?
/role 君は山に詳しい。
/role
谷は?
/undo
/set temperature 0
/set temperature
/save {saved}
"""
    result = issun("chat", fuji, stdin=script)
    assert result.out == "富士山です。\n富士山です。\n"
    assert result.err == (
        "[role changed, new conversation]\n"
        "User:君は山に詳しい。\nAssistant:了解しました。\n"
        "[removed: 谷は?]\n"
        "[temperature 0.0]\n"
        "error: temperature is '', it must be a number.\n"
        f"[saved: {saved}]\n"
        f"[saved the KV cache, so that /load need not compute it: {saved}.kv, 0.5 MB]\n"
    )
    assert result.code == 2
    assert saved.exists()  # though a command failed


def test_save_and_load(fuji: Path, tmp_path: Path) -> None:
    saved = tmp_path / "会話.json"
    result = issun("chat", fuji, "--role", "先生", stdin=f"山は?\n/save {saved}\n/save {saved}\n")
    beside = saved.with_name("会話.json.kv")
    assert result.err == (
        f"[saved: {saved}]\n"
        f"[saved the KV cache, so that /load need not compute it: {beside}, "
        f"{beside.stat().st_size / 1e6:,.1f} MB]\n"
        f"error: {saved} exists: choose another name.\n"
    )
    assert result.code == 2
    assert has_mode(saved, 0o600)
    assert json.loads(saved.read_text(encoding="utf-8")) == {
        "format": 1,
        "role": ["User:先生", "Assistant:了解しました。"],
        "turns": [["山は?", "富士山です。"]],
    }
    result = issun("chat", fuji, stdin=f"/load {saved}\n/retry\n/undo\n/role\n")
    assert result.out == "富士山です。\n"
    assert result.err == (
        "[turns loaded: 1]\n[removed: 山は?]\nUser:先生\nAssistant:了解しました。\n"
    )


def test_continue_goes_on_where_the_answer_was_cut(fuji: Path) -> None:
    result = issun("chat", fuji, "--max-new-tokens", "3", stdin="山は?\n/continue\n/continue\n")
    assert result.out == "富士\n山です\n。\n"
    assert result.err == "[stopped at 3 tokens; /continue continues]\n" * 2


def test_commands_as_an_ime_leaves_them(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="／ｓｅｔ\u3000temperature\u30000.5\n/set\u3000top_k 3\n")
    assert result.err == "[temperature 0.5]\n[top_k 3]\n"


def test_a_temperature_that_makes_answers_random_is_remarked_on(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="/set temperature 2\n/set temperature 9\n")
    assert result.err == (
        "[temperature 2.0]\n[temperature 9.0]\n"
        "[Above a temperature of 2 answers are mostly random; 0.5 to 1 is usual.]\n"
    )
    result = issun("chat", fuji, stdin="/set temperature 101\n")
    assert result.err == ("error: temperature is 101.0, it must be a number from 0 to 100.\n")


def test_a_newline_as_a_stop_string() -> None:
    seen = []

    def command(*, sampling: dict[str, object]) -> None:
        seen.append(sampling)

    with_sampling(command)(**dict.fromkeys(SAMPLING) | {"stop": [r"\n", "です"]})
    assert seen == [{"stop": ("\n", "です")}]


@pytest.mark.slow
def test_windows_line_ends(fuji: Path) -> None:
    counts = [
        json.loads(issun("generate", fuji, "--json", "--instruction", "-", stdin=text).out)
        for text in ("山は?", "山は?\n", "山は?\r\n")
    ]
    assert len({answer["timings"]["prompt_tokens"] for answer in counts}) == 1


def test_unknown_command(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="/nothing\n")
    assert result.err == (
        "error: There is no command /nothing; /help lists the commands. "
        "To send a message that begins with a slash, begin it with //.\n"
    )
    assert (result.code, result.out) == (2, "")


def test_help_lists_every_command(fuji: Path) -> None:
    names = [line.split()[0] for line in issun("chat", fuji, stdin="/help\n").err.splitlines()]
    commands = "/reset /role /undo /retry /continue /save /load /set /quit /help"
    assert " ".join(names[:-1]) == commands


@pytest.mark.sampled
@pytest.mark.parametrize("leave", ["/quit", "/exit", "/bye", "／ＱＵＩＴ", "/Exit  "])
def test_a_command_that_leaves(fuji: Path, leave: str) -> None:
    result = issun("chat", fuji, stdin=f"山は?\n{leave}\n谷は?\n")
    assert (result.code, result.out, result.err) == (0, "富士山です。\n", "")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("typed", "message"),
    [("//etcとは?", "/etcとは?"), ("／／とは?", "／とは?"), ("///", "//"), ("/／quit", "／quit")],
)
def test_a_message_that_begins_with_a_slash(fuji: Path, typed: str, message: str) -> None:
    result = issun("chat", fuji, stdin=f"{typed}\n/undo\n")
    assert (result.out, result.err) == ("富士山です。\n", f"[removed: {message}]\n")


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "iso-2022-jp", "utf-16"])
@pytest.mark.parametrize("text", ["日本で一番高い山は?", "躓いたら、どうする?", "テスト①を要約"])
def test_other_encodings_on_a_pipe_are_named(fuji: Path, encoding: str, text: str) -> None:
    if "①" in text and encoding != "utf-16":
        text = text.replace("①", "")
    raw = (text + "\n").encode(encoding)
    fix = f"`iconv -f {encoding} -t utf-8`"
    expected = f"error: The text on stdin is {encoding}, not UTF-8. Convert it: {fix}\n"
    for command in (["chat", fuji], ["generate", fuji, "-"]):
        result = issun(*command, stdin=raw)
        assert (result.code, result.out, result.err) == (2, "", expected)
    converted = subprocess.run(
        ["iconv", "-f", encoding, "-t", "utf-8"], input=raw, capture_output=True, check=True
    ).stdout
    assert converted.decode().strip() == text


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "iso-2022-jp"])
def test_other_encodings_of_files_are_named(fuji: Path, encoding: str, tmp_path: Path) -> None:
    role = tmp_path / "role.txt"
    role.write_bytes("User:あなたは猫だ。".encode(encoding))
    schema = tmp_path / "schema.json"
    schema.write_bytes('{"enum": ["猫である"]}'.encode(encoding))
    fix = f"it is {encoding}, not UTF-8: `iconv -f {encoding} -t utf-8` converts it"
    result = issun("chat", fuji, "--role-file", role)
    assert (result.code, result.err) == (2, f"error: {role} cannot be read: {fix}\n")
    result = issun("generate", fuji, "猫は?", "--json-schema", schema)
    assert (result.code, result.err) == (2, f"error: {schema} cannot be read: {fix}\n")


def test_powershell_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    error = stdin_error("山は?".encode("cp932"), ParameterError("damaged"))
    assert str(error).endswith("Convert it: `$OutputEncoding = [Text.Encoding]::UTF8`")


def test_stats_go_to_stderr(fuji: Path) -> None:
    result = issun("chat", fuji, "--stats", stdin="山は?\n")
    assert result.out == "富士山です。\n"
    assert re.search(r"tokens/s, TTFT [\d.]+ s, ITL p50 \d+ ms, p99 \d+ ms,", result.err)
    assert "peak" in result.err


def test_old_turns_are_dropped_and_told(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="山について、できるだけくわしく教えてください。\n" * 6)
    assert result.out == "富士山です。\n" * 6
    assert "[old turns dropped to fit the context: " in result.err


def test_stop_string_and_length(fuji: Path) -> None:
    assert issun("chat", fuji, "--stop", "です", stdin="山は?\n").out == "富士山\n"


def test_japanese_messages_where_the_locale_is_japanese(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="/undo\n", LANG="ja_JP.UTF-8")
    assert result.err == "エラー: 取り消すやりとりがありません。\n"


@pytest.mark.sampled
@pytest.mark.parametrize("language", ["C", "POSIX", "ja_JP.eucJP", "en_US.ISO-8859-1"])
def test_utf8_whatever_the_locale(fuji: Path, language: str) -> None:
    result = issun(
        "chat", fuji, "--role", "先生", stdin="/role\n山は?\n", LC_ALL=language, PYTHONUTF8="0"
    )
    assert result.out == "富士山です。\n"
    assert "User:先生" in result.err


@bash
def test_reader_that_goes_away_is_no_error(endless: Path) -> None:
    command = f"'{sys.executable}' -m issun.cli.main chat '{endless}' --max-new-tokens 16000"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; printf '山は?\\n' | {command} | head -c 6"],
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.stdout.decode() == "富士"
    assert b"Traceback" not in done.stderr


def test_nothing_heavy_is_imported(fuji: Path) -> None:
    script = (
        "import sys, atexit\n"
        "from issun.cli.main import main\n"
        "heavy = 'torch transformers optimum onnx onnx_ir matplotlib rich prompt_toolkit'.split()\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules]))\n"
        f"sys.argv = ['issun', 'chat', {str(fuji)!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"a\n",
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert done.stdout.decode() == "富士山です。\n[]\n"


@pytest.mark.alone
def test_first_token_within_a_second(ja_small: "object") -> None:
    bundle = ja_small("int8")  # type: ignore[operator]
    seconds = []
    for _ in range(5):  # the best of some: other work on the machine only ever adds
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "issun.cli.main", "chat", bundle, "--min-new-tokens", "2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("日本の首都は?\n".encode())
            process.stdin.close()
            assert process.stdout.read(1)
            seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1.0, seconds


class Typing:
    """A terminal at which somebody types until the conversation has begun to read ahead."""

    reading = threading.Event()

    def __init__(self, **options: object) -> None:
        pass

    def read(self) -> str:
        assert self.reading.wait(5)
        raise EOFError


def test_the_next_prompt_is_read_while_the_user_types(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def read_ahead(stop: Callable[[], bool]) -> int:
        Typing.reading.set()
        while not stop():
            time.sleep(0.001)
        ended.append(True)
        raise ConversationError("What goes wrong here is told when the message is answered.")

    monkeypatch.setattr("issun.cli.terminal.Terminal", Typing)
    with Model.load() as model:
        conversation = Conversation(model)
        monkeypatch.setattr(conversation, "read_ahead", read_ahead)
        chat._run_interactively(chat.Chat(conversation, stats=False), model, keep_history=False)
    assert ended == [True]


def test_a_conversation_that_cannot_be_read_in_japanese(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="/load nofile\n", ISSUN_LANG="ja")
    assert result.err == "エラー: nofile を読めません: ファイルまたはフォルダーがありません\n"


def test_what_commands_say_in_japanese(fuji: Path) -> None:
    result = issun("chat", fuji, stdin="/set\n/save\n", ISSUN_LANG="ja")
    assert "\nseed なし\n" in result.err
    assert result.err.endswith("\nエラー: ファイル名を指定してください: /save ファイル\n")


def test_failing_commands_from_a_pipe_do_not_end_the_chat(fuji: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    failing = [
        "/save .",
        "/save /",
        f"/save {tmp_path / ('x' * 256)}",
        "/load /dev/null",
        "/nothing",
        "/undo",
    ]
    script = "\n".join([*failing, "山は?", "/set top_k x", f"/save {saved}", "/continue", "谷は?"])
    result = issun("chat", fuji, stdin=script)
    assert result.code == 2
    assert result.out.count("富士山です。\n") == 2
    assert result.err.count("error: ") == len(failing) + 2, result.err
    assert json.loads(saved.read_text(encoding="utf-8"))["turns"] == [["山は?", "富士山です。"]]
