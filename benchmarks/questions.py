"""Reads tables of questions, with the words that make an answer right or wrong."""

from __future__ import annotations

import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from issun.benchmarks.errors import TableError
from issun.runtime import Turn
from issun.runtime.files import as_utf8, reason_of, user_path

Format = Literal["short", "chat", "json"]
TEXT_FORMATS: tuple[Format, ...] = ("short", "chat")
FORMATS: tuple[Format, ...] = (*TEXT_FORMATS, "json")
PACKAGED = Path(__file__).with_name("questions.toml")


@dataclass(frozen=True, slots=True)
class Question:
    """A question; a right answer contains one of `right` and none of `wrong`.

    `input` is only for the short format. `role` and `history` replace those of the table, and are
    only for the chat format. With a `schema` there is also the JSON format, without history.
    """

    question: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    input: str | None = None
    role: tuple[str, ...] | None = None
    history: tuple[Turn, ...] | None = None
    category: str = ""
    schema: dict[str, Any] | None = None

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats that it supports."""
        if self.role is not None or self.history is not None:
            return ("chat",)
        text = TEXT_FORMATS if self.input is None else TEXT_FORMATS[:1]
        return text if self.schema is None else (*text, "json")


@dataclass(frozen=True, slots=True)
class Table:
    """Questions, and the role and history for the chat format."""

    questions: tuple[Question, ...]
    role: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """A question in TOML."""

    question: str
    right: str | list[str]
    wrong: str | list[str] = []
    input: str | None = None
    role: list[str] | None = None
    history: list[tuple[str, str]] | None = None
    category: str = ""
    leaf: str | None = None
    json_schema: dict[str, Any] | None = msgspec.field(name="schema", default=None)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A table in TOML."""

    questions: list[dict[str, Any]]
    role: list[str] = []
    history: list[tuple[str, str]] = []


def read_table(path: str | Path | None = None) -> Table:
    """Read a TOML table; the packaged one by default. Raises TableError with row and field."""
    path = PACKAGED if path is None else user_path(path)
    try:
        read = msgspec.convert(tomllib.loads(as_utf8(path.read_bytes()).decode()), _File)
    except OSError as error:
        raise TableError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise TableError(
            "{path} is not a valid table: {reason}", path=path, reason=error
        ) from error
    if not read.questions:
        raise TableError("{path} has no questions.", path=path)
    rows = tuple(_question(path, place, row) for place, row in enumerate(read.questions, start=1))
    return Table(rows, tuple(read.role), _turns(read.history))


def _question(path: Path, place: int, values: dict[str, Any]) -> Question:
    try:
        row = msgspec.convert(values, _Row)
    except msgspec.ValidationError as error:
        raise TableError(
            "{path}, row {row}: {reason}", path=path, row=place, reason=error
        ) from error
    question = Question(
        row.question,
        _words(row.right),
        _words(row.wrong),
        row.input,
        None if row.role is None else tuple(row.role),
        None if row.history is None else _turns(row.history),
        row.category,
        row.json_schema if row.leaf is None else _with_leaf(row.leaf),
    )
    if row.leaf is not None and row.json_schema is not None:
        raise TableError(
            "{path}, row {row}: give either `leaf`, the name of a single value, or a complete "
            "`schema`.",
            path=path,
            row=place,
        )
    _check(question, path, place)
    return question


def _with_leaf(name: str) -> dict[str, Any]:
    """The schema of an object with one string."""
    properties = {name: {"type": "string"}}
    return {
        "type": "object",
        "properties": properties,
        "required": [name],
        "additionalProperties": False,
    }


def _check(question: Question, path: Path, place: int) -> None:
    """Raise TableError for a question that could not be judged as intended."""
    where = {"path": path, "row": place}
    if not question.question.strip():
        raise TableError("{path}, row {row}: `question` is empty.", **where)
    if not question.right:
        raise TableError("{path}, row {row}: `right` is empty.", **where)
    for name, words in (("right", question.right), ("wrong", question.wrong)):
        if not all(word.strip() for word in words):
            raise TableError("{path}, row {row}: `{field}` has an empty word.", field=name, **where)
    if question.input is not None and "chat" in question.formats:
        raise TableError(
            "{path}, row {row}: `input` is for the short format, `role` and `history` are for the "
            "chat format: a row cannot have both.",
            **where,
        )
    if question.schema is not None and "json" not in question.formats:
        raise TableError(
            "{path}, row {row}: `leaf` and `schema` cannot be combined with `role` and `history`.",
            **where,
        )
    for right in question.right:
        for wrong in question.wrong:
            if plain(wrong) in plain(right):
                raise TableError(
                    "{path}, row {row}: the wrong word {wrong!r} is part of the right word "
                    "{right!r}, so no answer with it could be right.",
                    wrong=wrong,
                    right=right,
                    **where,
                )


def _words(words: str | list[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def _turns(pairs: list[tuple[str, str]]) -> tuple[Turn, ...]:
    return tuple(Turn(message, reply) for message, reply in pairs)


def plain(text: str) -> str:
    """The text normalized to NFKC, in which answers and words are compared."""
    return unicodedata.normalize("NFKC", text)
