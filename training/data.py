"""Files of training data -> records, with all that is wrong in a file listed at once."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from issun.export.template import ALPACA
from issun.runtime.files import as_utf8, reason_of, user_path
from issun.runtime.prompt import Turn
from issun.training.errors import DataError, RecordError
from issun.training.files import write_whole
from issun.training.records import BOS, EOS, SPECIAL_TOKENS, chat_record, instruction_record

_INSTRUCTION = {"instruction", "input", "output"}
_CHAT = {"role", "history", "message", "answer"}
_USER, _ASSISTANT = (
    pattern.removesuffix("{message}") for pattern in (ALPACA.chat.user, ALPACA.chat.assistant)
)
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Record:
    """A record's text, and the line of its file on which it begins."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Faults:
    """Lines that are no record, each with the reason; the text puts like ones together."""

    items: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        """All of them, such as "lines 3, 7-9: not JSON; line 4: `output` is missing"."""
        lines: dict[str, list[int]] = {}
        for line, reason in self.items:
            lines.setdefault(reason, []).append(line)
        return "; ".join(f"{line_numbers(at)}: {reason}" for reason, at in lines.items())


def line_numbers(lines: Iterable[int]) -> str:
    """Numbers of lines as a person writes them: "line 3", "lines 3, 7-9"."""
    numbers = sorted(set(lines))
    runs = [
        [line for _, line in run]
        for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ]
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"line {text}" if len(numbers) == 1 else f"lines {text}"


def read_records(path: Path, *, special: Iterable[str] = SPECIAL_TOKENS) -> list[Record]:
    """The records of a file: instructions or chats as a JSON list or JSONL, or records as .txt.

    An instruction has `instruction`, `output` and perhaps `input`. A chat has `message`, `answer`
    and perhaps `role` (lines, or one text as `Conversation` takes it) and `history` (pairs of
    message and answer, or lines `User:...` and `Assistant:...` in turn). Other fields are ignored.
    Raises DataError that lists every line that is no record, and why.
    """
    path = user_path(path)
    try:
        raw = as_utf8(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not raw:
        raise DataError("{path} is empty.", path=path)
    if path.suffix.lower() == ".txt":
        found = _each_line(raw, _checked)
    elif raw.lstrip().startswith(b"["):
        found = _each_element(raw, lambda value: _converted(value, special))
    else:
        found = _each_line(raw, lambda line: _converted(_parsed(line), special))
    records, faults = [], []
    for line, result in found:
        if isinstance(result, RecordError):
            faults.append((line, str(result.values["reason"])))
        else:
            records.append(Record(line, result))
    if faults:
        raise DataError(
            "{path}: {bad:,} of {total:,} records cannot be used: {faults}.",
            path=path,
            bad=len(faults),
            total=len(faults) + len(records),
            faults=Faults(tuple(faults)),
        )
    if not records:
        raise DataError("{path} holds no record.", path=path)
    return records


def convert(source: Path, target: Path) -> int:
    """Write the records of `source` to the new file `target`, one a line, and give their number.

    Raises DataError for what is no record, and when `target` exists or cannot be written.
    """
    target = user_path(target)
    if target.exists() or target.is_symlink():
        raise DataError("{path} exists: choose another name.", path=target)
    records = read_records(source)
    try:
        write_whole(target, "".join(f"{record.text}\n" for record in records).encode())
    except OSError as error:
        raise DataError(
            "{path} cannot be written: {reason}", path=target, reason=reason_of(error)
        ) from error
    return len(records)


Found = Iterator[tuple[int, str | RecordError]]


def _each_line(raw: bytes, make: Callable[[str], str]) -> Found:
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, make(line.decode("utf-8").removesuffix("\r"))
        except UnicodeDecodeError as error:
            yield number, _fault(f"not UTF-8 (byte {error.start + 1} of the line)")
        except RecordError as error:
            yield number, error


def _each_element(raw: bytes, make: Callable[[Any], str]) -> Found:
    """The elements of a JSON list; what follows an element that is no JSON cannot be read."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        yield raw.count(b"\n", 0, error.start) + 1, _fault("not UTF-8")
        return
    breaks = [match.start() for match in re.finditer("\n", text)]
    decoder, at, mark = json.JSONDecoder(), _skip(text, text.index("[") + 1), ","
    if text[at : at + 1] == "]":
        at, mark = _skip(text, at + 1), "]"
    while mark == ",":
        line = bisect_left(breaks, at) + 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield getattr(error, "lineno", line), _fault(_json_fault(error))
            return
        try:
            yield line, make(value)
        except RecordError as error:
            yield line, error
        at = _skip(text, at)
        mark = text[at : at + 1]
        at = _skip(text, at + 1)
    if mark != "]" or at < len(text):
        what = "text behind the list" if mark == "]" else "a comma or ] is missing"
        yield bisect_left(breaks, at) + 1, _fault(f"not JSON: {what}")


def _skip(text: str, at: int) -> int:
    """The next place from `at` on that is not blank."""
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _checked(line: str) -> str:
    """A line that is a record already."""
    if not line.startswith(BOS) or not line.endswith(EOS):
        raise _fault(f"does not begin with {BOS} and end with {EOS}")
    for token in (BOS, EOS):
        if line.count(token) > 1:
            raise _fault(f"holds {token} more than once")
    return line


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _fault(_json_fault(error)) from error


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    return "not JSON that can be read: too deep, or too long a number"


def _converted(value: Any, special: Iterable[str]) -> str:
    if not isinstance(value, dict):
        raise _fault("not an object")
    names = value.keys() & (_INSTRUCTION | _CHAT)
    if names & _INSTRUCTION and names & _CHAT:
        mixed = ", ".join(f"`{name}`" for name in value if name in names)
        raise _fault(f"mixes the fields of an instruction and of a chat: {mixed}")
    if names & _CHAT:
        return chat_record(
            _role(value.get("role")),
            _turns(value.get("history")),
            _text(value, "message"),
            _text(value, "answer"),
            special=special,
        )
    instruction = _text(value, "instruction")
    input_text = None if value.get("input") is None else _text(value, "input")
    return instruction_record(instruction, input_text, _text(value, "output"), special=special)


def _text(value: dict[str, Any], name: str) -> str:
    if name not in value:
        raise _fault(f"`{name}` is missing")
    if not isinstance(value[name], str):
        raise _fault(f"`{name}` is no text")
    text: str = value[name]
    return text


def _role(role: Any) -> list[str] | str:
    if role is None:
        return []
    if isinstance(role, str) or _are_texts(role):
        return role  # type: ignore[no-any-return]
    raise _fault("`role` is neither a text nor a list of texts")


def _turns(history: Any) -> list[Turn]:
    if history is None:
        return []
    if not isinstance(history, list):
        raise _fault("`history` is no list")
    if all(_are_texts(pair) and len(pair) == 2 for pair in history):
        return [Turn(message, answer) for message, answer in history]
    if not _are_texts(history):
        raise _fault("`history` is no list of [message, answer], and no list of lines")
    marks = (_USER, _ASSISTANT)
    if len(history) % 2 or any(not line.startswith(marks[i % 2]) for i, line in enumerate(history)):
        raise _fault(f"the lines of `history` are not {_USER}… and {_ASSISTANT}… in turn")
    lines = [line.removeprefix(marks[i % 2]) for i, line in enumerate(history)]
    return [Turn(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _fault(reason: str) -> RecordError:
    return RecordError("No record can be made: {reason}", reason=reason)
