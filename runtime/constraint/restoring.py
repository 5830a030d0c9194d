"""Restores the literals of the schema where the vocabulary only has a normalized spelling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.flat_schema import Conjunction, FlatSchema
from issun.runtime.constraint.literals import Literals, dumps


class WholeText:
    """Restores an answer that is a single literal, once it is complete."""

    def __init__(self, originals: Mapping[str, str]) -> None:
        self._originals, self._text = originals, ""

    def push(self, text: str) -> str:
        """Hold the text back."""
        self._text += text
        return ""

    def finish(self) -> str:
        """Return the literal."""
        text = self.cut()
        return self._originals.get(text, text)

    def cut(self) -> str:
        """Return the answer so far as it was spelled."""
        text, self._text = self._text, ""
        return text


class JsonText:
    """Restores the names and values in a JSON answer that the schema lists.

    A string is held back until it is complete. Its position determines which literals it may be.
    """

    def __init__(self, alternatives: Alternatives, literals: Literals, places: Conjunction) -> None:
        self._alternatives, self._literals = alternatives, literals
        self._open: list[_Level] = []  # unclosed objects and arrays
        self._next = self._position([places])  # of the next value
        self._string = ""  # an incomplete string, with its quote
        self._escaped = False

    def push(self, text: str) -> str:
        """Add `text` and return everything before an incomplete string."""
        return "".join(map(self._push, text))

    def finish(self) -> str:
        """Return nothing: a complete answer has no incomplete string."""
        return self.cut()

    def cut(self) -> str:
        """Return the incomplete string."""
        text, self._string = self._string, ""
        return text

    def _push(self, character: str) -> str:
        if self._string:
            self._string += character
            whole = character == '"' and not self._escaped
            self._escaped = character == "\\" and not self._escaped
            return self._restored(self.cut()) if whole else ""
        if character == '"':
            self._string = character
            return ""
        if character in "{[":
            self._open.append(_Level(self._next, character == "{"))
            self._expect_item()
        elif character in "}]":
            self._open.pop()
        elif character == ",":
            self._expect_item()
        return character

    def _expect_item(self) -> None:
        """Expect the next name or item of the innermost object or array."""
        level = self._open[-1]
        level.index += 1
        level.name = level.is_object
        if not level.is_object:
            index, lists = level.index, (v for v in level.position.values if isinstance(v, list))
            self._next = self._position(
                (flat.item(index) for flat in level.position.schemas),
                (value[index] for value in lists if index < len(value)),
            )

    def _restored(self, string: str) -> str:
        text = json.loads(string)
        level = self._open[-1] if self._open else None
        if not level or not level.name:
            return self._original(string, text, self._next.values)
        objects = [value for value in level.position.values if isinstance(value, dict)]
        listed = [name for flat in level.position.schemas for name in flat.properties]
        given = self._original(string, text, [*listed, *(name for o in objects for name in o)])
        name, level.name = json.loads(given), False
        self._next = self._position(
            (flat.property(name) for flat in level.position.schemas),
            (value[name] for value in objects if name in value),
        )
        return given

    def _original(self, string: str, text: str, literals: Iterable[Any]) -> str:
        """Return the literal that `string` spells, as JSON; `string` if there is no other."""
        texts = [literal for literal in literals if isinstance(literal, str)]
        found = [literal for literal in texts if self._literals.nearest(literal) == text]
        return string if text in found or not found else dumps(found[0])

    def _position(
        self, places: Iterable[Conjunction | None], values: Iterable[Any] = ()
    ) -> _Position:
        schemas = [flat for some in set(places) for flat in self._alternatives.of(some)]
        listed = [value for flat in schemas for _, value in flat.values or ()]
        return _Position(schemas, [*values, *listed])


@dataclass(frozen=True, slots=True)
class _Position:
    """What may be at a position: its alternatives, and the values listed for it."""

    schemas: list[FlatSchema]
    values: list[Any]


@dataclass(slots=True)
class _Level:
    """An unclosed object or array."""

    position: _Position
    is_object: bool
    index: int = -1
    name: bool = False  # whether the next string is a name
