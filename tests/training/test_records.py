"""Records compared with the published format, and faults of data files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.export.template import ALPACA
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.slot_template import system_lines
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.turn import Turn
from issun.training.convert import convert
from issun.training.data import Faults, Record, line_numbers, read_records
from issun.training.errors import DataError, RecordError
from issun.training.records import SPECIAL_TOKENS, chat_record, instruction_record
from tests.cli.conftest import environment
from tests.special_ids import assign_special_ids

PLAIN = (
    r"<s>\n以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。"
    r"\n[SEP]\n指示:\n空はなぜ青いの?\n[SEP]\n応答:\n光が散るからです。\n</s>"
)
WITH_INPUT = (
    r"<s>\n以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。"
    r"\n[SEP]\n指示:\n訳しなさい。\n[SEP]\n入力:\n雨\n雪\n[SEP]\n応答:\nRain\nSnow\n</s>"
)
CHAT = (
    r"<s>\n以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。"
    r"\n[SEP]\n指示:\nUser:あなたは猫だ。\nAssistant:にゃ。\nUser:やあ\nAssistant:にゃあ"
    r"\n[SEP]\n入力:\nUser:名前は?\n[SEP]\n応答:\nない\n</s>"
)
SKY = {"instruction": "空はなぜ青いの?", "output": "光が散るからです。"}
RAIN = {"instruction": "訳しなさい。", "input": "雨\n雪", "output": "Rain\r\nSnow"}
CAT = {
    "role": ["User:あなたは猫だ。", "Assistant:にゃ。"],
    "history": [["やあ", "にゃあ"]],
    "message": "名前は?",
    "answer": "ない",
}
LINES = {**CAT, "history": ["User:やあ", "Assistant:にゃあ"]}


@pytest.fixture(scope="module", params=[False, True], ids=["", "lower"])
def tokenizer(request: pytest.FixtureRequest, spiece: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(
        spiece, assign_special_ids(spiece, SPECIAL_TOKENS), do_lower_case=request.param
    )


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def write_lines(path: Path, *lines: object) -> Path:
    texts = [
        line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines
    ]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def faults_of(path: Path) -> dict[int, str]:
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert "\n" not in str(caught.value)
    faults = caught.value.values["faults"]
    assert isinstance(faults, Faults)
    return dict(faults.items)


def test_records_equal_the_published_format() -> None:
    assert instruction_record(SKY["instruction"], None, SKY["output"]) == PLAIN
    assert instruction_record(SKY["instruction"], "", SKY["output"]) == PLAIN
    assert instruction_record(RAIN["instruction"], RAIN["input"], RAIN["output"]) == WITH_INPUT
    role = ["User:あなたは猫だ。", "Assistant:にゃ。"]
    assert chat_record(role, [Turn("やあ", "にゃあ")], "名前は?", "ない") == CHAT


def test_a_role_as_text_is_wrapped_as_in_a_conversation() -> None:
    lines = system_lines(ALPACA, "猫になる。")
    assert chat_record("猫になる。", [], "やあ", "にゃ") == chat_record(lines, [], "やあ", "にゃ")
    assert chat_record(" ", [], "やあ", "にゃ") == chat_record([], [], "やあ", "にゃ")


# Any text, including lone surrogates, that does not spell a special token.
def is_plain(text: str) -> bool:
    return not any(token.lower() in text.lower() for token in SPECIAL_TOKENS)


texts = st.text(st.characters(codec=None, exclude_categories=[]), max_size=9).filter(is_plain)
filled = texts.filter(lambda text: text.strip())


@given(filled, texts, filled)
def test_an_instruction_record_starts_with_the_ids_of_its_prompt(
    tokenizer: SentencePieceTokenizer, instruction: str, text: str, output: str
) -> None:
    record = instruction_record(instruction, text, output)
    ids = PromptBuilder(ALPACA, tokenizer, 4096).instruction(instruction, text)
    assert_record(tokenizer, record, ids, output)


@given(
    st.lists(texts, max_size=2),
    st.lists(st.builds(Turn, texts, texts), max_size=2),
    filled,
    filled,
)
def test_a_chat_record_starts_with_the_ids_of_its_prompt(
    tokenizer: SentencePieceTokenizer, role: list[str], turns: list[Turn], message: str, answer: str
) -> None:
    record = chat_record(role, turns, message, answer)
    builder = PromptBuilder(ALPACA, tokenizer, 4096)
    ids = builder.chat(role, turns, message, max_new_tokens=1).ids
    assert_record(tokenizer, record, ids, answer)


def assert_record(
    tokenizer: SentencePieceTokenizer, record: str, prompt: list[int], answer: str
) -> None:
    record.encode()  # it can be encoded
    assert "\n" not in record
    assert "\r" not in record
    head, mark, tail = record.rpartition(r"[SEP]\n応答:\n")
    assert tokenizer.encode(head + mark, special=True) == prompt
    assert tail.endswith(r"\n</s>")
    spelled = answer.replace("\r\n", "\n").replace("\r", "\n").replace("\n", r"\n")
    end = tokenizer.encode(r"\n応答:\n" + spelled + r"\n")
    sep = tokenizer.special["[SEP]"]
    ids = tokenizer.encode(record, special=True)
    cut = len(prompt) - prompt[::-1].index(sep)
    assert ids[:cut] == prompt[:cut]
    assert ids[cut:] == [*end, tokenizer.special["</s>"]]


@pytest.mark.parametrize("token", ["</s>", "[SEP]", "<unk>", "<S>", "[sep]"])
def test_text_that_spells_a_special_token_is_refused(token: str) -> None:
    text = f"a{token}b"
    for arguments in ((text, None, "b"), ("a", text, "b"), ("a", None, text)):
        with pytest.raises(RecordError) as caught:
            instruction_record(*arguments)
        assert f"text contains {token}" in str(caught.value)
    chats: list[tuple[list[str], list[Turn], str, str]] = [
        ([text], [], "a", "b"),
        ([], [Turn(text, "")], "a", "b"),
        ([], [Turn("", text)], "a", "b"),
        ([], [], text, "b"),
        ([], [], "a", text),
    ]
    for chat in chats:
        with pytest.raises(RecordError, match="would become a special token"):
            chat_record(*chat)


@pytest.mark.parametrize("empty", ["", " ", "\n\t　"])
def test_empty_messages_and_answers_are_refused(empty: str) -> None:
    for ask, answer in ((empty, "b"), ("a", empty)):
        with pytest.raises(RecordError, match="is empty"):
            instruction_record(ask, None, answer)
        with pytest.raises(RecordError, match="is empty"):
            chat_record([], [], ask, answer)


def test_every_kind_of_file(tmp_path: Path) -> None:
    expected = [PLAIN, WITH_INPUT, CHAT, CHAT]
    values: list[Any] = [{**SKY, "id": 7}, RAIN, CAT, LINES]
    files = [
        write(tmp_path / "a.json", values),
        write_lines(tmp_path / "b.jsonl", *values),
        write_lines(tmp_path / "c.txt", *expected),
    ]
    for path in files:
        assert [record.text for record in read_records(path)] == expected
        raw = path.read_bytes()
        for other in (b"\xef\xbb\xbf" + raw, raw.replace(b"\n", b"\r\n"), raw.rstrip(), raw):
            path.write_bytes(other)
            assert [record.text for record in read_records(path)] == expected


def test_line_numbers_are_those_on_which_records_start(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", "", SKY, "", "  ", RAIN)
    assert read_records(path) == [Record(2, PLAIN), Record(5, WITH_INPUT)]
    path.write_text(
        '[\n\n{"instruction":\n"空はなぜ青いの?",\n"output": "光が散るからです。"}\n,\n'
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(RAIN)}, {json.dumps(SKY)}]")
    assert [record.line for record in read_records(path)] == [3, 7, 7]


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{no", "not JSON"),
    "a cut line": ('{"instruction": "a", "output": "b', "not JSON"),
    "too deep": ("[" * 100_000, "not readable as JSON"),
    "too long a number": ('{"instruction": ' + "1" * 5000 + "}", "not readable as JSON"),
    "a number": ("7", "not an object"),
    "a list": (["a"], "not an object"),
    "nothing known": ({"text": "a"}, "`instruction` is missing"),
    "no output": ({"instruction": "a"}, "`output` is missing"),
    "no answer": ({"message": "a"}, "`answer` is missing"),
    "no message": ({"role": [], "answer": "a"}, "`message` is missing"),
    "output is null": ({"instruction": "a", "output": None}, "`output` is not text"),
    "input is a list": ({"instruction": "a", "input": [], "output": "b"}, "`input` is not text"),
    "empty instruction": ({"instruction": " ", "output": "b"}, "`instruction` is empty"),
    "empty output": ({"instruction": "a", "output": ""}, "`output` is empty"),
    "both kinds": ({**SKY, "answer": "b"}, "mixes fields of an instruction and a chat"),
    "role is a number": ({**CAT, "role": 1}, "`role` is neither"),
    "history is a text": ({**CAT, "history": "a"}, "`history` is not a list"),
    "history of triples": ({**CAT, "history": [["a", "b", "c"]]}, "`history` is neither a list of"),
    "history of three lines": (
        {**CAT, "history": ["User:a", "Assistant:b", "User:c"]},
        "do not alternate between User:… and Assistant:…",
    ),
    "history without names": (
        {**CAT, "history": ["a", "b"]},
        "do not alternate between User:… and Assistant:…",
    ),
}


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    lines = [value for value, _ in BAD.values()]
    found = faults_of(write_lines(tmp_path / "a.jsonl", SKY, *lines, RAIN))
    assert list(found) == list(range(2, len(BAD) + 2))
    for (_, reason), fault in zip(BAD.values(), found.values(), strict=True):
        assert reason in fault
    whole = [value for value in lines if not isinstance(value, str)]
    path = tmp_path / "a.json"
    path.write_text("[\n" + ",\n".join(map(json.dumps, [*whole, SKY])) + "\n]", encoding="utf-8")
    found = faults_of(path)
    assert list(found) == list(range(2, len(whole) + 2))


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[\n{"instruction": "a",\n "output" "b"}]', 3, "not JSON: Expecting ':' delimiter"),
        (f"[\n{json.dumps(SKY)}\n{json.dumps(SKY)}]", 3, "a comma or ] is missing"),
        (f"[\n{json.dumps(SKY)}", 2, "a comma or ] is missing"),
        (f"[{json.dumps(SKY)}]\n[]", 2, "text after the list"),
        ("[]\n7", 2, "text after the list"),
        (f"[{json.dumps(SKY)},]", 1, "not JSON"),
        ("[", 1, "not JSON"),
    ],
)
def test_invalid_json_lists(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    found = faults_of(path)
    assert list(found) == [line]
    assert reason in found[line]


def test_invalid_utf8_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(SKY).encode()
    path.write_bytes(good + b"\n\xff\n" + good + b"\nab\x80\n")
    assert faults_of(path) == {
        2: "not UTF-8 (byte 1 of the line)",
        4: "not UTF-8 (byte 3 of the line)",
    }
    path.write_bytes(b"[\n" + good + b",\n\xff]")
    assert faults_of(path) == {3: "not UTF-8"}


def test_text_records_are_checked(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", PLAIN, "a</s>", PLAIN[:-4], PLAIN * 2, "", WITH_INPUT)
    found = faults_of(path)
    assert list(found) == [2, 3, 4]
    assert found[2] == found[3] == "does not start with <s> and end with </s>"
    assert found[4] == "contains <s> more than once"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_files_without_a_record(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_records(path)
    for empty in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(empty)
        with pytest.raises(DataError, match=r"a\.\w+ is empty\.$"):
            read_records(path)
    path.write_bytes(b" \n\n" if name != "a.json" else b" [ \n] \n")
    with pytest.raises(DataError, match="contains no record"):
        read_records(path)


def test_equal_faults_are_grouped() -> None:
    faults = Faults(((1, "a"), (2, "a"), (3, "b"), (4, "a"), (6, "a")))
    assert str(faults) == "lines 1-2, 4, 6: a; line 3: b"
    assert line_numbers([3]) == "line 3"


def run_module(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "issun.training.convert", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(),
        check=False,
    )


@pytest.mark.slow
def test_conversion(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.json", [SKY, CAT]), tmp_path / "out.txt"
    done = run_module(source, target)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{target}: 2 records\n")
    assert target.read_bytes() == f"{PLAIN}\n{CHAT}\n".encode()
    assert [record.text for record in read_records(target)] == [PLAIN, CHAT]
    again = run_module(source, target)
    assert again.returncode == 2
    assert again.stderr == f"error: {target} exists: choose another name.\n"
    bad = run_module(write_lines(tmp_path / "b.jsonl", SKY, {"instruction": "a"}), tmp_path / "c")
    assert bad.returncode == 2
    assert bad.stderr.endswith("1 of 2 records cannot be used: line 2: `output` is missing.\n")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.jsonl", "out.txt"}


def test_conversion_to_an_invalid_target(tmp_path: Path) -> None:
    source = write(tmp_path / "a.json", [SKY])
    with pytest.raises(DataError, match="cannot be written"):
        convert(source, tmp_path / "no" / "out.txt")
