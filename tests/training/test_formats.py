"""Data files in common formats: read as records, or refused with the reason."""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from issun.export.template import ALPACA
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.turn import Turn
from issun.training.convert import convert
from issun.training.data import Faults, read_records
from issun.training.errors import DataError
from issun.training.fields import ALIASES
from issun.training.records import SPECIAL_TOKENS, chat_record, instruction_record
from tests.special_ids import assign_special_ids

SKY = {"instruction": "空は?", "output": "青い。"}
RAIN = {"instruction": "訳して", "input": "雨\n雪", "output": "Rain\nSnow"}
SKY_RECORD = instruction_record("空は?", None, "青い。")
RAIN_RECORD = instruction_record("訳して", "雨\n雪", "Rain\nSnow")
BOM = b"\xef\xbb\xbf"


def texts_of(path: Path) -> list[str]:
    return [record.text for record in read_records(path)]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def dumped(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def fault_of(path: Path) -> tuple[int, str]:
    """Line and reason of the only fault."""
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert "\n" not in str(caught.value)
    faults = caught.value.values["faults"]
    assert isinstance(faults, Faults)
    (found,) = faults.items
    return found


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (dumped([SKY, RAIN]), [1, 1]),
        (dumped([SKY, RAIN], indent=2), [2, 6]),
        (dumped(SKY) + "\n" + dumped(RAIN), [1, 2]),
        (dumped(SKY, indent=4) + "\n" + dumped(RAIN, indent=4), [1, 5]),
        (dumped(SKY, indent=4) + dumped(RAIN), [1, 4]),
        (dumped({"data": [SKY, RAIN]}), [1, 1]),
        (dumped({"version": "1.0", "data": [SKY, RAIN]}, indent=1), [4, 8]),
        (dumped({"train": [SKY, RAIN], "license": {"name": "MIT"}}, indent=1), [3, 7]),
        ("\n\n" + dumped({"例": [SKY, RAIN]}), [3, 3]),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a"])
def test_json_in_any_layout(content: str, lines: list[int], name: str, tmp_path: Path) -> None:
    for raw in (content.encode(), BOM + content.encode(), content.replace("\n", "\r\n").encode()):
        found = read_records(written(tmp_path / name, raw))
        assert [record.text for record in found] == [SKY_RECORD, RAIN_RECORD]
        assert [record.line for record in found] == lines


def test_concatenated_json_lines_with_byte_order_marks(tmp_path: Path) -> None:
    part = BOM + dumped(SKY).encode() + b"\n"
    assert texts_of(written(tmp_path / "a.jsonl", part * 3)) == [SKY_RECORD] * 3
    pretty = BOM + dumped(SKY, indent=1).encode() + b"\n"
    assert texts_of(written(tmp_path / "a.json", pretty * 3)) == [SKY_RECORD] * 3
    records = BOM + SKY_RECORD.encode() + b"\n"
    assert texts_of(written(tmp_path / "a.txt", records * 3)) == [SKY_RECORD] * 3


CONVERSATIONS: dict[str, Any] = {
    "ShareGPT": {
        "conversations": [
            {"from": "system", "value": "猫だ。"},
            {"from": "human", "value": "やあ"},
            {"from": "gpt", "value": "にゃ"},
            {"from": "human", "value": "名は?"},
            {"from": "gpt", "value": "ない"},
        ]
    },
    "OpenAI": {
        "messages": [
            {"role": "system", "content": "猫だ。"},
            {"role": "user", "content": "やあ"},
            {"role": "assistant", "content": "にゃ", "tool_calls": None, "refusal": None},
            {"role": "user", "content": [{"type": "text", "text": "名は"}, {"text": "?"}]},
            {"role": "assistant", "content": "ない", "weight": 1},
        ],
        "tools": [],
    },
    "a role in another field": {
        "system": "猫だ。",
        "conversations": [
            {"from": "user", "value": "やあ"},
            {"from": "chatgpt", "value": "にゃ"},
            {"from": "User", "value": "名は?"},
            {"from": "model", "value": "ない"},
        ],
    },
    "names mixed": {
        "conversation": [
            {"role": "developer", "value": "猫だ。"},
            {"from": "human", "content": "やあ"},
            {"role": "bot", "content": "にゃ"},
            {"role": "人間", "content": "名は?"},
            {"role": "アシスタント", "content": "ない"},
        ]
    },
}
CAT = [
    chat_record("猫だ。", [], "やあ", "にゃ"),
    chat_record("猫だ。", [Turn("やあ", "にゃ")], "名は?", "ない"),
]


@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_a_conversation_gives_a_record_for_each_answer(kind: str, tmp_path: Path) -> None:
    value = CONVERSATIONS[kind]
    for content in (dumped(value), dumped([value], indent=1), dumped({"data": [value]})):
        assert texts_of(written(tmp_path / "a.json", content)) == CAT


def test_a_list_of_messages_is_a_conversation(tmp_path: Path) -> None:
    messages = CONVERSATIONS["OpenAI"]["messages"]
    lines = dumped(SKY) + "\n" + dumped(messages)
    assert texts_of(written(tmp_path / "a.jsonl", lines)) == [SKY_RECORD, *CAT]
    assert texts_of(written(tmp_path / "a.json", dumped([messages]))) == CAT


def test_answers_of_weight_0_are_skipped(tmp_path: Path) -> None:
    value = json.loads(dumped(CONVERSATIONS["OpenAI"]))
    value["messages"][2]["weight"] = 0
    assert texts_of(written(tmp_path / "a.jsonl", dumped(value))) == CAT[1:]
    value["messages"][4]["weight"] = 0
    path = written(tmp_path / "a.jsonl", dumped(value))
    assert fault_of(path) == (1, "`messages` has no answer to train on")


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([USER], "`messages` ends with a user message without an answer"),
        ([USER, ANSWER, USER], "`messages` ends with a user message"),
        ([ANSWER], "`messages[0]` is from the assistant, expected the user"),
        ([USER, USER], "`messages[1]` is from the user, expected the assistant"),
        (
            [{"role": "system", "content": "a"}] * 2 + [USER, ANSWER],
            "`messages[1]` is from the system, expected the user",
        ),
        ([], "`messages` has no answer to train on"),
        ([USER, "b"], "`messages[1]` is not an object"),
        ([USER, {"role": "tool", "content": "7"}], "`messages[1].role` is 'tool'"),
        ([USER, {"role": 7, "content": "7"}], "`messages[1].role` is 7"),
        ([USER, {"content": "7"}], "`messages[1]` has no `from` or `role`"),
        ([USER, {"role": "assistant", "content": None}], "has no `value` or `content`"),
        (
            [USER, {"role": "assistant", "content": "", "tool_calls": [{}]}],
            "`messages[1].tool_calls` is not supported",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER],
            "`messages[0].content[0]` is not a text part",
        ),
        ([USER, ANSWER | {"weight": 0.5}], "`messages[1].weight` is 0.5, it must be 0 or 1"),
        ([USER, ANSWER | {"content": " "}], "`answer` is empty"),
        ("a", "`messages` is not a list"),
    ],
)
def test_invalid_conversations(value: Any, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", dumped(SKY) + "\n" + dumped({"messages": value}))
    line, found = fault_of(path)
    assert line == 2
    assert reason in found


@pytest.mark.parametrize("name", [*ALIASES, "Input", "INSTRUCTION", "Ｏｕｔｐｕｔ", " output "])
def test_other_names_of_fields(name: str, tmp_path: Path) -> None:
    field = ALIASES.get(name) or unicodedata.normalize("NFKC", name).strip().lower()
    records = {
        "instruction": ({**RAIN}, RAIN_RECORD),
        "input": ({**RAIN}, RAIN_RECORD),
        "output": ({**RAIN}, RAIN_RECORD),
        "role": (
            {"role": "猫だ。", "message": "やあ", "answer": "にゃ"},
            CAT[0],
        ),
        "answer": ({"role": "猫だ。", "message": "やあ", "answer": "にゃ"}, CAT[0]),
        "messages": ({"messages": CONVERSATIONS["OpenAI"]["messages"][:3]}, CAT[0]),
    }
    value, expected = records[field]
    value = {name if key == field else key: content for key, content in value.items()}
    assert texts_of(written(tmp_path / "a.jsonl", dumped(value))) == [expected]


@pytest.mark.parametrize(
    "names", [("question", "answer"), ("prompt", "completion"), ("質問", "回答")]
)
def test_pairs_of_a_question_and_an_answer(names: tuple[str, str], tmp_path: Path) -> None:
    value = dict(zip(names, ("空は?", "青い。"), strict=True))
    assert texts_of(written(tmp_path / "a.jsonl", dumped(value))) == [SKY_RECORD]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({**SKY, "inptu": "a"}, "`inptu` is unknown: did you mean `input`?"),
        ({**SKY, "Contexts": "a"}, "`Contexts` is unknown: did you mean `context`?"),
        ({"instruction": "a", "ouput": "b"}, "`ouput` is unknown: did you mean `output`?"),
        ({**SKY, "prompt": "a"}, "`instruction` and `prompt` are both the field `instruction`"),
        ({**RAIN, "入力": "a"}, "`input` and `入力` are both the field `input`"),
        ({**SKY, "tools": [{"name": "f"}]}, "`tools` is not supported"),
        ({**SKY, "images": ["a.png"]}, "`images` is not supported"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "`chosen` is not supported"),
        ({**SKY, "system": "a"}, "mixes fields of an instruction and a chat"),
        ({**SKY, "messages": []}, "mixes fields of a conversation and another kind of record"),
        ({"text": "a"}, "`instruction` is missing, there is only `text`"),
    ],
)
def test_unknown_and_unsupported_fields(value: dict[str, Any], reason: str, tmp_path: Path) -> None:
    assert reason in fault_of(written(tmp_path / "a.jsonl", dumped(value)))[1]


def test_unused_fields_are_reported(tmp_path: Path) -> None:
    told: list[str] = []
    values = [
        {**SKY, "id": 1, "source": "x", "input": None, "Input": ""},
        {**SKY, "id": 2, "tools": None, "weight": 1},
        {"messages": [USER, ANSWER | {"name": "x"}]},
    ]
    path = written(tmp_path / "a.jsonl", "\n".join(map(dumped, values)))
    read_records(path, notify=lambda template, **values: told.append(template.format(**values)))
    assert told == [
        f"{path}: ignored the fields `id` (2), `messages[].name` (1), `source` (1), "
        "`tools` (1), `weight` (1)."
    ]


@pytest.mark.parametrize(
    ("content", "line", "names"),
    [
        ('{"output": "a", "instruction": "b", "output": "c"}', 1, "`output`"),
        (f'{dumped(SKY)}\n{{"output": "a", "instruction": "b", "output": "a"}}', 2, "`output`"),
        (f'[{dumped(SKY)},\n{{"output": "a", "instruction": "b",\n"output": "c"}}]', 2, "`output`"),
        ('{"data": [\n{"output": "a", "instruction": "b", "output": "c"}]}', 2, "`output`"),
        ('{"data": [{"output": "a", "instruction": "b"}],\n"data": []}', 1, "`data`"),
        ('{\n"messages": [{"role": "user", "content": "a", "content": "b"}]}', 1, "`content`"),
    ],
)
def test_duplicate_keys(content: str, line: int, names: str, tmp_path: Path) -> None:
    found = fault_of(written(tmp_path / "a.json", content))
    assert found == (line, f"duplicate key {names}")


def table(delimiter: str, rows: list[list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.CSV", ";")])
def test_csv_and_tsv(name: str, delimiter: str, tmp_path: Path) -> None:
    rows = [["", "instruction", "input", "output"], ["0", "訳して", "雨\n雪", "Rain\nSnow"]]
    content = table(delimiter, [*rows, ["1", "空は?", "", "青い。"]])
    for raw in (content.encode(), BOM + content.encode(), content.rstrip().encode()):
        found = read_records(written(tmp_path / name, raw))
        assert [record.text for record in found] == [RAIN_RECORD, SKY_RECORD]
        assert [record.line for record in found] == [2, 5]


def test_conversations_in_a_table(tmp_path: Path) -> None:
    messages = dumped(CONVERSATIONS["OpenAI"]["messages"])
    content = table(",", [["messages", "id"], [messages, "1"], ["[", "2"]])
    path = written(tmp_path / "a.csv", content)
    assert fault_of(path) == (3, "`messages` is not JSON")
    assert texts_of(written(path, "".join(content.splitlines(keepends=True)[:2]))) == CAT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("instruction,output\na,b,c\n", "3 cells, but the header has 2"),
        ("instruction,output\na\n", "1 cells, but the header has 2"),
        ('instruction,output\na,"b\n', "not a table row: unexpected end of data"),
        ("instruction,output\na,\n", "`output` is empty"),
        ("instruction,answer,message\na,b,c\n", "mixes fields"),
        ("a,b\nc,d\n", "`instruction` is missing, there is only `a`, `b`"),
    ],
)
def test_invalid_rows(content: str, reason: str, tmp_path: Path) -> None:
    line, found = fault_of(written(tmp_path / "a.csv", content))
    assert line == 2
    assert reason in found


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("a.csv", b"output,output\na,b\n", "has several columns 'output': rename them."),
        ("a.csv", "instruction,output\n空は?,青い。\n".encode("cp932"), "it is cp932, not UTF-8"),
        ("a.jsonl", dumped(SKY).encode("cp932"), "`iconv -f cp932 -t utf-8` converts it"),
        ("a.txt", "<s>空は?\n青い。</s>\n".encode("cp932"), "`iconv -f cp932 -t utf-8` converts"),
        ("a.json", dumped([SKY]).encode("euc-jp"), "it is euc-jp, not UTF-8"),
        ("a.json", dumped([SKY]).encode("utf-16")[:-1], "it is utf-16-le, and damaged"),
        ("a.jsonl.gz", b"\x1f\x8b\x08rest", "is compressed with gzip: give JSON, JSON Lines, CSV"),
        ("a.xlsx", b"PK\x03\x04rest", "is a ZIP archive or an Excel workbook"),
        ("a.arrow", b"ARROW1\0\0rest", "is an Arrow file"),
        ("a.csv", b"instruction,output\n", "contains no record"),
        ("a.json", b'{"data": []}', "contains no record"),
    ],
)
def test_unsupported_files(name: str, raw: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_records(written(tmp_path / name, raw))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = written(tmp_path / "a.parquet", b"PAR1rest")
    with pytest.raises(
        DataError, match=r"Parquet, which needs pyarrow: pip install \"issun\[train"
    ):
        read_records(path)


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet is read with pyarrow, of the extra train")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist([RAIN, {**SKY, "input": None}]), path)
    found = read_records(path)
    assert [(r.line, r.text) for r in found] == [(1, RAIN_RECORD), (2, SKY_RECORD)]
    values = [CONVERSATIONS["ShareGPT"]] * 2
    parquet.write_table(pa.Table.from_pylist(values), path, row_group_size=1)
    assert texts_of(path) == CAT * 2
    parquet.write_table(pa.Table.from_pylist([RAIN, {**RAIN, "output": None}]), path)
    assert fault_of(path) == (2, "`output` is not text")
    for damaged in (b"PAR1", path.read_bytes()[:-30]):
        with pytest.raises(DataError, match="cannot be read: "):
            read_records(written(tmp_path / "b.parquet", damaged))


@pytest.mark.parametrize("token", ["</s>", "[SEP]", "<unk>", "<S>", "[PAD]"])
@pytest.mark.parametrize("lower", [False, True])
def test_spelled_special_tokens_are_text(
    token: str, lower: bool, spiece: Path, tmp_path: Path
) -> None:
    tokenizer = SentencePieceTokenizer(
        spiece, assign_special_ids(spiece, SPECIAL_TOKENS), do_lower_case=lower
    )
    text = f"山{token}は\n{token}"
    values = [
        {"instruction": text, "input": text, "output": text},
        {"instruction": text, "output": text},
        {"role": text, "history": [[text, text]], "message": text, "answer": text},
    ]
    path = written(tmp_path / "a.jsonl", "\n".join(map(dumped, values)))
    builder = PromptBuilder(ALPACA, tokenizer, 4096)
    turns, role = [Turn(text, text)], builder.system_lines(text)
    prompts = [
        builder.instruction(text, text),
        builder.instruction(text),
        builder.chat(role, turns, text, max_new_tokens=1).ids,
    ]
    spelled = text.replace("\n", r"\n")
    end = [*tokenizer.encode(rf"\n応答:\n{spelled}\n"), tokenizer.special["</s>"]]
    sep = tokenizer.special["[SEP]"]
    for record, prompt in zip(read_records(path), prompts, strict=True):
        cut = len(prompt) - prompt[::-1].index(sep)
        assert record.encode(tokenizer) == [*prompt[:cut], *end]
    with pytest.raises(DataError, match=r"special token .* \(lines 1-3\)"):
        convert(path, tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_special_tokens_in_a_text_file_are_tokens(spiece: Path, tmp_path: Path) -> None:
    tokenizer = SentencePieceTokenizer(spiece, assign_special_ids(spiece, SPECIAL_TOKENS))
    line = "<s>山[SEP]は</s>"
    (record,) = read_records(written(tmp_path / "a.txt", line))
    assert record.encode(tokenizer) == tokenizer.encode(line, special=True)
    assert record.encode(tokenizer)[-1] == tokenizer.special["</s>"]


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.tsv", "a.jsonl"])
def test_every_format_is_converted(name: str, tmp_path: Path) -> None:
    rows = [["instruction", "input", "output"], list(RAIN.values()), ["空は?", "", "青い。"]]
    content = {
        "a.json": dumped({"data": [RAIN, SKY]}, indent=1),
        "a.jsonl": dumped(RAIN) + "\n" + dumped(SKY),
        "a.csv": table(",", rows),
        "a.tsv": table("\t", rows),
    }[name]
    assert convert(written(tmp_path / name, content), tmp_path / "out.txt") == 2
    assert texts_of(tmp_path / "out.txt") == [RAIN_RECORD, SKY_RECORD]
