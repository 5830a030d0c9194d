"""Reading of inputs: every format, and what is refused before any row is answered."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.cluster import rows as module
from issun.cluster.errors import BatchError
from issun.cluster.output import check_suffixes, write_output
from issun.cluster.rows import open_parquet, read_rows, survey, table_columns
from tests.needs import posix

ROWS = [{"instruction": "要約: \n「山」", "n": "1"}, {"instruction": "川,", "n": "2"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        import csv

        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"in{suffix}", ROWS)
    assert [json.loads(line) for line in read_rows(path)] == ROWS
    found = survey(path)
    assert (found.rows, found.kind) == (2, "simple")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table_columns(path) == (None if suffix == ".jsonl" else ["instruction", "n"])


def test_lines_of_json_may_have_a_mark_blank_lines_and_no_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n  \n{"prompt": "b"}')
    assert list(read_rows(path)) == [b'{"prompt": "a"}', b'{"prompt": "b"}']


def test_a_line_that_is_not_json_stays_a_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    bad = b"not json\n\xff\n[1]\n"
    path.write_bytes(b'{"url": "/v1/completions"}\n' + bad)
    found = survey(path)
    assert (found.rows, found.kind) == (4, "batch")
    path.write_bytes(bad + b'{"url": "/v1/completions"}\n{"prompt": "a"}\n')
    found = survey(path)
    assert (found.rows, found.kind) == (5, "batch")
    path.write_bytes(bad)
    found = survey(path)
    assert (found.rows, found.kind) == (3, "simple")


def test_a_parquet_file_keeps_its_types_in_the_output(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table(
        {
            "prompt": ["a", "b"],
            "day": pa.array([0, 20_000], pa.date32()),
            "price": pa.array([1.5, None], pa.float32()),
        }
    )
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(table, source)
    assert json.loads(next(read_rows(source))) == {"prompt": "a", "day": "1970-01-01", "price": 1.5}
    results = {"generated_text": "c", "finish_reason": "stop", "status": 200, "error": None}
    lines = [json.dumps({"prompt": name, **results}).encode() for name in "ab"]
    write_output(source, target, iter(lines))
    found = parquet.read_table(target)
    assert found.select(table.column_names).equals(table)
    assert found.column("generated_text").to_pylist() == ["c", "c"]
    assert found.column("status").to_pylist() == [200, 200]


def test_times_of_pandas_are_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    columns = {
        "prompt": ["x", "y"],
        "at": pa.array([1, None], pa.timestamp("ns")),
        "took": pa.array([1, None], pa.duration("ns")),
    }
    parquet.write_table(pa.table(columns), path)
    assert [json.loads(line) for line in read_rows(path)] == [
        {"prompt": "x", "at": "1970-01-01T00:00:00.000000001", "took": "P0DT0H0M0.000000001S"},
        {"prompt": "y", "at": None, "took": None},
    ]


def test_a_csv_file_gets_four_more_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ROWS)
    results = {"generated_text": "a\nb", "finish_reason": "stop", "status": 200, "error": None}
    lines = [json.dumps({**row, **results}).encode() for row in ROWS]
    write_output(source, tmp_path / "out.csv", iter(lines))
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[0] == (
        "instruction,n,generated_text,finish_reason,status,error"
    )
    read = [json.loads(line) for line in read_rows(tmp_path / "out.csv")]
    assert [row["generated_text"] for row in read] == ["a\nb", "a\nb"]
    assert [row["instruction"] for row in read] == [row["instruction"] for row in ROWS]
    assert not list(tmp_path.glob("*.partial"))


def test_one_kind_of_table_becomes_the_other(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"prompt": "山", "n": 1, "list": [{"a": "川"}]},
        {"prompt": "川", "n": None, "list": None},
    ]
    source = tmp_path / "in.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), source)
    check_suffixes(source, tmp_path / "out.csv")
    results = {"generated_text": "c", "finish_reason": "stop", "status": 200, "error": None}
    lines = [json.dumps(json.loads(row) | results).encode() for row in read_rows(source)]
    write_output(source, tmp_path / "out.csv", iter(lines))
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines() == [
        "prompt,n,list,generated_text,finish_reason,status,error",
        '山,1,"[{""a"":""川""}]",c,stop,200,',
        "川,,,c,stop,200,",
    ]
    again = write(tmp_path / "in.csv", ROWS)
    check_suffixes(again, tmp_path / "out.parquet")
    lines = [json.dumps({**row, **results}).encode() for row in map(json.loads, read_rows(again))]
    write_output(again, tmp_path / "out.parquet", iter(lines))
    found = parquet.read_table(tmp_path / "out.parquet")
    texts = {name: None if v is None else str(v) for name, v in ROWS[0].items()}
    assert found.to_pylist()[0] == {**texts, **results}
    assert found.schema.field("status").type == pa.int16()
    assert found.num_rows == len(ROWS)


def lines_with(*names: str) -> str:
    return "".join(json.dumps({"custom_id": name, "prompt": "x"}) + "\n" for name in names)


def test_a_name_may_occur_once(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(lines_with("a", "b", "c", "b"), encoding="utf-8")
    with pytest.raises(BatchError, match="rows 2 and 4 have the same custom_id 'b'"):
        survey(path)
    numbers = [{"custom_id": number, "prompt": "x"} for number in (1, 2.5, None, None, 1)]
    with pytest.raises(BatchError, match="rows 1 and 5 have the same custom_id '1'"):
        survey(write(path, numbers))


def test_equal_hashes_are_no_equal_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.jsonl"
    monkeypatch.setattr(module, "_hash", len)
    path.write_text(lines_with("a", "b", "cc", "dd"), encoding="utf-8")
    assert survey(path).rows == 4
    path.write_text(lines_with("a", "b", "cc", "dd", "cc"), encoding="utf-8")
    with pytest.raises(BatchError, match="rows 3 and 5"):
        survey(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", b"\n\n", "has no rows"),
        ("in.csv", b"a,b\n1,2,3\n", r"line 2: there are more fields than columns"),
        ("in.csv", b'a,b\n"1,2\n', r"line 2: unexpected end of data"),
        ("in.csv", "山\n".encode("cp932") * 9, "cannot be read: it is"),
        (
            "in.jsonl",
            b'{"prompt": "a"}\n' + '{"prompt": "日本の山"}\n'.encode("cp932"),
            "cannot be read: it is cp932, not UTF-8: `iconv -f cp932 -t utf-8` converts it",
        ),
        ("in.jsonl", '{"prompt": "日本の山"}\n'.encode("iso-2022-jp"), "it is iso-2022-jp, not"),
        ("in.csv", "prompt\n日本の山\n".encode("iso-2022-jp"), "it is iso-2022-jp, not UTF-8"),
        ("in.csv", b'prompt\n"a\nb"\n"c"d\n', "line 4: "),
        ("in.csv", b"prompt\n" + b"x" * (17 << 20), "has a line of more than 16,777,216 bytes"),
        ("in.jsonl", '{"prompt": "a"}\n'.encode("utf-16-le"), "it is utf-16-le, not UTF-8"),
        ("in.jsonl", '{"prompt": "a"}\n'.encode("utf-32"), "it is utf-32, not UTF-8"),
        ("in.parquet", b"PAR1", "cannot be read: "),
        ("in.jsonl", '{"prompt": "山"}\r\n'.encode("utf-16"), "cannot be read: it is utf-16, not"),
        ("in.jsonl", None, "cannot be read: No such file"),
        ("in.csv", None, "cannot be read: No such file"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BatchError, match=message):
        survey(path)


@pytest.mark.parametrize("damaged", ["日本の山".encode("cp932"), "日本の".encode()[:-1], b"\xff"])
def test_a_damaged_line_among_others_is_a_row(tmp_path: Path, damaged: bytes) -> None:
    lines = ['{"prompt": "山"}'.encode(), b'{"prompt": "' + damaged + b'"}']
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines))
    assert survey(path).rows == 2


def test_a_line_has_a_largest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_LINE", 50)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "x"}\n' + b"y" * 60)
    with pytest.raises(BatchError, match="a line of more than 50 bytes"):
        survey(path)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("in.txt", "out.jsonl", "in.txt has an unknown ending: the input must end with .jsonl"),
        ("in.csv", "out.xlsx", "the output of in.csv must end with .jsonl or .csv or .parquet"),
        ("in.jsonl", "out.parquet", "the output of in.jsonl must end with .jsonl"),
        ("in.jsonl", "out.csv", "the output of in.jsonl must end with .jsonl"),
    ],
)
def test_unknown_endings(source: str, target: str, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        check_suffixes(Path(source), Path(target))


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(BatchError, match=r"cannot be written: No such file or directory$"):
        write_output(source, tmp_path / "no" / "out.jsonl", iter([b"{}"]))


def test_an_input_that_is_written_meanwhile(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", ROWS)
    found = survey(path)
    found.check_unchanged(path)
    path.write_text(path.read_text(encoding="utf-8") + '{"prompt": "x"}\n', encoding="utf-8")
    with pytest.raises(BatchError, match="was changed during the run"):
        found.check_unchanged(path)
    for rows in (ROWS[:1], [*ROWS, *ROWS]):
        with pytest.raises(BatchError, match="was changed during the run"):
            list(found.read(write(path, rows)))
    assert [index for index, _ in found.read(write(path, ROWS))] == [0, 1]


def test_zeros_of_a_crash_are_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    for zeros in (3, 30, 50):
        torn = b'{"prompt": "a"}\n{"prompt": "abc' + bytes(zeros)
        path.write_bytes(torn + b'\n\0\0\0\n{"pro\0mpt": "b"}\n')
        assert survey(path).rows == 4


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_escapes_in_text_are_no_other_encoding(tmp_path: Path, suffix: str) -> None:
    texts = ["\x1b[31mred\x1b[0m", "a literal \\u001b", *(["\x1b$B"] * (suffix == ".jsonl"))]
    path = write(tmp_path / f"in{suffix}", [{"prompt": text} for text in texts])
    assert survey(path).rows == len(texts)
    assert [json.loads(line)["prompt"] for line in read_rows(path)] == texts


def test_an_input_that_is_written_while_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "in.jsonl", ROWS)

    def hashed(path: Path) -> str:
        write(path, [*ROWS, *ROWS])
        return "0"

    monkeypatch.setattr(module, "sha256_of", hashed)
    with pytest.raises(BatchError, match="was changed during the run"):
        survey(path)


def test_a_row_that_is_written_meanwhile_is_never_read(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "x" * 9000}] * 9)
    found = survey(path)
    rows = found.read(path)
    next(rows)
    os.utime(path, ns=(1, 1))  # its content is the same
    next(rows)
    with path.open("r+b") as file:
        file.seek(-9000, os.SEEK_END)
        file.write(b"y")
    with pytest.raises(BatchError, match=r"was changed during the run\. Restore it and repeat"):
        next(rows)


@posix
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet"])
def test_a_pipe_is_refused(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    os.mkfifo(path)
    for read in (table_columns, survey):
        if name != "in.jsonl" or read is survey:
            with pytest.raises(BatchError, match="it is a pipe or a device, not a file"):
                read(path)


def test_text_in_bytes_is_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    rows = [{"prompt": "日本の山".encode(), "image": b"\xff\xfe\x00"}]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert [json.loads(line) for line in read_rows(path)] == [{"prompt": "日本の山", "image": None}]


def test_a_time_that_python_does_not_have_is_one_error(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"prompt": ["x"], "day": pa.array([10**7], pa.date32())}), path)
    with pytest.raises(BatchError, match="cannot be read: date value out of range"):
        survey(path)


def test_a_group_of_rows_is_not_held_in_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    random = np.random.default_rng(0)
    prompts = [random.bytes(500).hex() for _ in range(40_000)]
    parquet.write_table(pa.table({"prompt": prompts}), path, row_group_size=len(prompts))
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        count = sum(batch.num_rows for batch in open_parquet(path).iter_batches(module.TABLE_ROWS))
    finally:
        pa.set_memory_pool(before)
    assert count == len(prompts)
    assert pool.max_memory() < path.stat().st_size / 2
