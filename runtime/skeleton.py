"""JSON schema -> a plan: the text that is known, and the leaves that a model has to write.

An object's listed properties are its skeleton. A property that need not be there and a value that
may be null are asked for, and the model may say that there is none. What has no fixed skeleton is
one leaf, written by the grammar of its schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from issun.runtime import leaves
from issun.runtime.errors import ParameterError
from issun.runtime.leaves import Ask, Leaf

Schema = dict[str, Any]
Filling = Generator[str | Ask, str, None]
# A text, and its place in the schema, -> the text as the model can write it; or ParameterError.
Spell = Callable[[str, str], str]

_MOST_NODES = 500  # of one plan: references may unfold to more than anybody reads
_LONGEST = 60  # characters of a description: some have pages of them
_MOST_ITEMS = 5  # objects of a list that has no bound
_ABSENT = object()
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_NAMING = {"title", "description"}
# Keywords that say what a value must be, by the type that they are about.
_OF_ANY = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$dynamicRef", "$recursiveRef"}
_OF = {
    "object": {
        *("patternProperties", "propertyNames", "minProperties", "maxProperties", "dependencies"),
        *("dependentRequired", "dependentSchemas"),
    },
    "array": {"prefixItems", "contains", "unevaluatedItems"},
    "string": {"contentEncoding", "contentMediaType", "contentSchema"},
}
_CONSTRAINING = _OF_ANY.union(
    *_OF.values(),
    ("type", "const", "enum", "$ref", "properties", "required", "additionalProperties"),
    ("items", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern"),
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
_FORMATS = {
    "date": r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z",
    "email": r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20})?@[a-z0-9]{1,20}(\.[a-z]{2,6}){1,2}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1?[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[1-9]?[0-9])",
}
_FORMATS["date-time"] = f"{_FORMATS['date']}T{_FORMATS['time']}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the JSON of one schema is filled."""

    _root: _Node

    @property
    def asks(self) -> list[Ask]:
        """Every kind of answer that may be asked for, so that all can be compiled before."""
        return list(self._root.asks())

    def fill(self, question: str) -> Filling:
        """JSON text as far as it is known, and what the model is asked; answers are sent in.

        `question` is what the user asked, which answers may repeat.
        """
        return self._root.fill("", question)


def make_plan(schema: Schema, spell: Spell = lambda text, path: text) -> Plan | None:
    """A plan for `schema`; None where only the grammar of the whole can be followed.

    Raises ParameterError for a text of the schema that the vocabulary cannot spell.
    """
    try:
        root = _Planner(schema, spell).node(schema, "#")
    except _NoSkeletonError:
        return None
    return None if isinstance(root, _Value) and root.leaf.ask.schema is not None else Plan(root)


class _NoSkeletonError(Exception):
    """The schema has parts that cannot be followed apart from the whole."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Text that no model is needed for."""

    text: str

    def asks(self) -> Iterator[Ask]:
        return iter(())

    def fill(self, label: str, question: str) -> Filling:
        yield self.text


@dataclass(frozen=True, slots=True)
class _Value:
    """One leaf."""

    leaf: Leaf

    def asks(self) -> Iterator[Ask]:
        yield from self.leaf.asks

    def fill(self, label: str, question: str) -> Filling:
        value = yield from self.leaf.value(label, question)
        yield _dump(value)


@dataclass(frozen=True, slots=True)
class _Object:
    """Properties by name: what each is called, and what is in it."""

    properties: Mapping[str, tuple[str, _Node]]

    def asks(self) -> Iterator[Ask]:
        for _, node in self.properties.values():
            yield from node.asks()

    def fill(self, label: str, question: str) -> Filling:
        before = "{"
        for name, (own, node) in self.properties.items():
            called = f"{label}の{own}" if label else own
            key = f"{before}{_dump(name)}:"
            if isinstance(node, _Value):
                value = yield from node.leaf.value(called, question)
                if value is _ABSENT:
                    continue
                yield key + _dump(value)
            else:
                yield key
                yield from node.fill(called, question)
            before = ","
        yield "{}" if before == "{" else "}"


@dataclass(frozen=True, slots=True)
class _Items:
    """A list of objects or lists: how many is asked first, then each by its place."""

    item: _Node
    count: Leaf

    def asks(self) -> Iterator[Ask]:
        yield from self.count.asks
        yield from self.item.asks()

    def fill(self, label: str, question: str) -> Filling:
        count = yield from self.count.value(f"{label}はいくつありますか", question)
        yield "["
        for place in range(count):
            if place:
                yield ","
            yield from self.item.fill(f"{place + 1}番目の{label}", question)
        yield "]"


_Node = _Known | _Value | _Object | _Items


class _Planner:
    """Turns one schema into nodes."""

    def __init__(self, root: Schema, spell: Spell) -> None:
        self._root, self._spell, self._count = root, spell, 0
        self._open: list[str] = []  # references that are being followed

    def node(self, schema: object, path: str) -> _Node:
        """What `schema`, which stands at `path`, becomes."""
        self._count += 1
        if self._count > _MOST_NODES:
            raise _NoSkeletonError
        if schema is True:
            return _Value(leaves.text(0, None))
        if not isinstance(schema, dict):
            raise _NoSkeletonError
        if "$ref" in schema:
            return self._reference(schema, path)
        if "const" in schema:
            return _Known(_dump(schema["const"]))
        if "enum" in schema and isinstance(schema["enum"], list):
            return self._one_of(schema["enum"], schema, path)
        return self._alternatives(schema, path) or self._typed(schema, path)

    def _reference(self, schema: Schema, path: str) -> _Node:
        reference = schema["$ref"]
        if reference in self._open or _constrains(schema, {"$ref"}):
            return self._by_grammar(schema)
        target = self._find(reference)
        self._open.append(reference)
        try:
            return self.node(target, path)
        finally:
            self._open.pop()

    def _find(self, reference: object) -> object:
        """What a reference within the schema points to."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _NoSkeletonError
        found: Any = self._root
        for part in filter(None, unquote(reference[1:]).split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise _NoSkeletonError from None
        return found

    def _alternatives(self, schema: Schema, path: str) -> _Node | None:
        """A choice of schemas: of values, of one and null, or of one alone."""
        for name in ("anyOf", "oneOf", "allOf"):
            branches = schema.get(name)
            if not isinstance(branches, list) or not branches:
                continue
            if _constrains(schema, {name, "type"}):
                return self._by_grammar(schema)
            if name == "allOf" and len(branches) > 1:
                return self._by_grammar(schema)
            if all(isinstance(b, dict) and ("const" in b or "enum" in b) for b in branches):
                values = [v for b in branches for v in b.get("enum", [b.get("const")])]
                return self._one_of(list({_dump(v): v for v in values}.values()), {}, path)
            filled = [b for b in branches if not (isinstance(b, dict) and b.get("type") == "null")]
            if len(filled) != 1:
                return self._by_grammar(schema)
            node = self.node(filled[0], f"{path}/{name}/{branches.index(filled[0])}")
            return node if len(filled) == len(branches) else _or(node, None)
        return None

    def _typed(self, schema: Schema, path: str) -> _Node:
        kinds = schema.get("type", _implied(schema))
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or not kinds or not set(kinds) <= set(_TYPES):
            raise _NoSkeletonError
        kind = next((k for k in kinds if k != "null"), "null")
        if not (_OF_ANY | _OF.get(kind, set())).isdisjoint(schema):
            return self._by_grammar(schema)
        make: dict[str, Callable[[Schema, str], _Node]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": lambda s, _: _Value(leaves.number(s | {"type": kind}, whole=True)),
            "number": lambda s, _: _Value(leaves.number(s | {"type": kind}, whole=False)),
            "boolean": lambda _, path: self._boolean(path),
            "null": lambda *_: _Known("null"),
        }
        node = make[kind](schema, path)
        return _or(node, None) if "null" in kinds and kind != "null" else node

    def _object(self, schema: Schema, path: str) -> _Node:
        listed, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(listed, dict) or not set(required) <= set(listed):
            return self._by_grammar(schema)
        if not listed:
            closed = schema.get("additionalProperties") is False
            return _Known("{}") if closed else self._by_grammar(schema)
        properties: dict[str, tuple[str, _Node]] = {}
        for name, own in listed.items():
            if own is False and name not in required:
                continue
            node = self.node(own, f"{path}/properties/{name}")
            if name not in required:
                node = _or(node, _ABSENT)
            properties[name] = (self._label(name, own), node)
        return _Object(properties)

    def _label(self, name: str, schema: object) -> str:
        """What a property is called in a question: its description or title, or else its name."""
        if not isinstance(schema, dict):
            return name
        if not _NAMING & set(schema) and "$ref" in schema:
            return self._label(name, self._find(schema["$ref"]))
        description, title = (
            str(schema.get(key) or "").strip() for key in ("description", "title")
        )
        if re.sub(r"[\s_]", "", title).lower() == name.replace("_", "").lower():
            title = ""  # as pydantic makes one of the name
        return description[:_LONGEST].rstrip("。.") or title or name

    def _array(self, schema: Schema, path: str) -> _Node:
        item = self.node(schema.get("items", True), f"{path}/items")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        unique = schema.get("uniqueItems") is True
        if most == 0:
            return _Known("[]")
        if (unique and least > 1) or self._is_grammar(item):
            return self._by_grammar(schema)
        if isinstance(item, _Value) and item.leaf.listable and not item.leaf.strict:
            leaf = leaves.several(item.leaf, least, most, unique=unique)
            return _Value(leaf if least else leaves.or_absent(leaf, []))
        last = 1 if unique else max(least, _MOST_ITEMS) if most is None else most
        counts = range(least, max(least, min(last, _MOST_ITEMS)) + 1)
        return _Items(item, leaves.one_of({str(count): count for count in counts}))

    def _is_grammar(self, node: _Node) -> bool:
        return isinstance(node, _Value) and node.leaf.ask.schema is not None

    def _string(self, schema: Schema, path: str) -> _Node:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        pattern, form = schema.get("pattern"), _FORMATS.get(str(schema.get("format")))
        if pattern is None and form is None:
            return _Value(leaves.text(least, most))
        if least or most is not None or (pattern is not None and form is not None):
            return self._by_grammar(schema)
        if pattern is None:
            return _Value(leaves.formed(str(form)))
        return _Value(leaves.matching(_unanchored(str(pattern))))

    def _boolean(self, path: str) -> _Node:
        words = {"はい": True, "いいえ": False}
        try:
            spelled = {self._spell(word, path): value for word, value in words.items()}
        except ParameterError:  # a vocabulary of another language
            return self._one_of([True, False], {}, path)
        return _Value(leaves.one_of(spelled, hint="はいかいいえで答えてください。"))

    def _one_of(self, values: Sequence[Any], schema: Schema, path: str) -> _Node:
        kinds = schema.get("type", _TYPES)
        kinds = [kinds] if isinstance(kinds, str) else kinds
        values = [value for value in values if any(_is_a(value, kind) for kind in kinds)]
        if not values or _constrains(schema, {"enum", "type"}):
            return self._by_grammar(schema)
        if len(values) == 1:
            return _Known(_dump(values[0]))
        return _Value(leaves.one_of({self._spelled(value, path): value for value in values}))

    def _spelled(self, value: object, path: str) -> str:
        text = value if isinstance(value, str) else "" if value is None else _dump(value)
        return self._spell(" ".join(text.split()) or "なし", path).strip()

    def _by_grammar(self, schema: Schema) -> _Node:
        """A leaf that is JSON by its own schema, with the definitions that this refers to."""
        definitions = {
            key: self._root[key] for key in ("$defs", "definitions") if key in self._root
        }
        for reference in _references([schema, definitions]):
            if not reference.startswith(tuple(f"#/{key}/" for key in definitions)):
                raise _NoSkeletonError
        uses = any(True for _ in _references(schema))
        return _Value(leaves.by_grammar(schema | definitions if uses else schema))


def _or(node: _Node, absent: object) -> _Node:
    """The same node, but a leaf of it may have no value."""
    return _Value(leaves.or_absent(node.leaf, absent)) if isinstance(node, _Value) else node


def _constrains(schema: Schema, but: set[str]) -> bool:
    """Whether `schema` says what a value must be with other keywords than `but`."""
    return not _CONSTRAINING.isdisjoint(set(schema) - but)


def _implied(schema: Schema) -> str:
    """The type that a schema without one speaks of."""
    for kind, names in (
        ("object", ("properties", "required", "additionalProperties")),
        ("array", ("items", "minItems", "maxItems")),
        ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    ):
        if any(name in schema for name in names):
            return kind
    return "string"


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and float(value).is_integer())
    return isinstance(value, {"string": str, "array": list, "object": dict}.get(kind, ()))


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _references(one)


def _unanchored(pattern: str) -> str:
    """The same pattern for a whole text: what it finds somewhere, alone, it finds as well."""
    pattern = pattern.removeprefix("^")
    return re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", pattern)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
