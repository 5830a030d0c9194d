"""Turns a JSON schema into a plan: fixed text, and the leaf values that a model has to write.

The skeleton is made of the listed properties of objects. For an optional property or a value that
may be null, the model may answer that there is none. A schema without a fixed skeleton becomes one
leaf, which is written by the schema's grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from issun.runtime import leaves
from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.following import fits
from issun.runtime.constraint.plain import Plain, canonical
from issun.runtime.constraint.references import Document, Place, inside
from issun.runtime.constraint.strings import FORMATS
from issun.runtime.errors import ParameterError
from issun.runtime.leaves import Ask, Leaf

Schema = dict[str, Any]
Filling = Generator[str | Ask, str, None]
# (text, its place in the schema) -> the text as the model can write it; raises ParameterError.
Spell = Callable[[str, str], str]

_MOST_NODES = 500  # of one plan: references may expand to an unreasonable number
_LONGEST = 60  # characters of a description that are used as a label
_MOST_ITEMS = 5  # objects of an array without maxItems
_ABSENT = object()
_NAMING = {"title", "description"}
# Keywords that constrain a value, by the type that they apply to.
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


class Count(NamedTuple):
    """The fewest and the most values that the model is asked for."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How to fill the JSON of one schema."""

    _root: _Node

    @property
    def asks(self) -> list[Ask]:
        """All queries that may be asked, so that their constraints can be compiled in advance."""
        return list(self._root.asks())

    @property
    def count(self) -> Count:
        """How many values the model is asked for."""
        return self._root.count

    def fill(self, question: str) -> Filling:
        """Yield fixed JSON text and queries; send the reply to each query.

        `question` is the user's text, which replies may repeat.
        """
        return self._root.fill("", question)


def make_plan(
    schema: Schema, spell: Spell = lambda text, path: text, *, most: int = _MOST_NODES
) -> Plan | None:
    """Return a plan for `schema`; None if only the grammar of the whole schema can describe it.

    The plan asks for at most `most` values if its lists can be that short.

    Raises ParameterError for an invalid or unsatisfiable schema, and for a text in it that the
    vocabulary cannot spell.
    """
    try:
        root = _Planner(schema, spell, most).node("#")
    except _NoSkeletonError:
        return None
    return None if _is_grammar(root) else Plan(root)


class _NoSkeletonError(Exception):
    """The schema has parts that cannot be filled separately."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Fixed text, which needs no model."""

    text: str
    count: ClassVar[Count] = Count(0, 0)

    def asks(self) -> Iterator[Ask]:
        return iter(())

    def fill(self, label: str, question: str) -> Filling:
        yield self.text


@dataclass(frozen=True, slots=True)
class _Value:
    """One leaf value."""

    leaf: Leaf
    count: ClassVar[Count] = Count(1, 1)

    def asks(self) -> Iterator[Ask]:
        yield from self.leaf.asks

    def fill(self, label: str, question: str) -> Filling:
        value = yield from self.leaf.value(label, question)
        yield _dump(value)


@dataclass(frozen=True, slots=True)
class _Object:
    """An object: the label and the node of each property."""

    properties: Mapping[str, tuple[str, _Node]]

    @property
    def count(self) -> Count:
        counts = [node.count for _, node in self.properties.values()]
        return Count(sum(c.least for c in counts), sum(c.most for c in counts))

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
    """A list of objects or lists: the model is asked for their number, then for each item."""

    item: _Node
    counts: range
    number: Leaf

    @property
    def count(self) -> Count:
        one = self.item.count
        return Count(1 + self.counts[0] * one.least, 1 + self.counts[-1] * one.most)

    def asks(self) -> Iterator[Ask]:
        yield from self.number.asks
        yield from self.item.asks()

    def fill(self, label: str, question: str) -> Filling:
        count = yield from self.number.value(f"{label}はいくつありますか", question)
        yield "["
        for place in range(count):
            if place:
                yield ","
            yield from self.item.fill(f"{place + 1}番目の{label}", question)
        yield "]"


_Node = _Known | _Value | _Object | _Items


class _Planner:
    """Converts the subschemas of one schema to nodes."""

    def __init__(self, schema: Schema, spell: Spell, most: int) -> None:
        self._document, self._spell, self._count = Document(schema), spell, 0
        self._most = most
        self._alternatives = Alternatives(self._document)
        self._open = ["#"]  # targets of the references that are being resolved

    def node(self, place: Place) -> _Node:
        """Return the node of the schema at `place`; ParameterError if it is unsatisfiable."""
        node = self._unplaced(place)
        return _Value(leaves.placed(node.leaf, place)) if isinstance(node, _Value) else node

    def _unplaced(self, place: Place) -> _Node:
        self._count += 1
        if self._count > _MOST_NODES:
            raise _NoSkeletonError
        some = self._alternatives.of((place,))
        if not some:
            raise ParameterError("{path}: no value can follow the schema.", path=place)
        schema = self._document.at(place)
        if not isinstance(schema, dict):
            return _anything()
        if all(plain.values is not None for plain in some):
            return self._one_of(some, place)
        if "$ref" in schema:
            return self._reference(schema, place)
        return self._either(schema, place) or self._typed(schema, some[0], place)

    def _reference(self, schema: Schema, place: Place) -> _Node:
        target = self._document.target(place, schema["$ref"])
        if target in self._open or _constrains(schema, {"$ref"}):
            return _by_grammar(place)
        self._open.append(target)
        try:
            return self.node(target)
        finally:
            self._open.pop()

    def _either(self, schema: Schema, place: Place) -> _Node | None:
        """Handle a combination of one schema with null, or of a single schema."""
        name = next((name for name in ("anyOf", "oneOf", "allOf") if name in schema), None)
        if name is None:
            return None
        branches = schema[name]
        filled = [b for b in branches if not (isinstance(b, dict) and b.get("type") == "null")]
        nullable = len(filled) < len(branches)
        if len(filled) != 1 or (nullable and name == "allOf"):
            return _by_grammar(place)
        if _constrains(schema, {name} if nullable else {name, "type"}):
            return _by_grammar(place)
        node = self.node(inside(place, name, branches.index(filled[0])))
        return _or(node, None) if nullable else node

    def _typed(self, schema: Schema, plain: Plain, place: Place) -> _Node:
        kinds = schema.get("type", _implied(schema))
        kinds = [kinds] if isinstance(kinds, str) else kinds
        kind = next((k for k in kinds if k != "null"), "null")
        if not (_OF_ANY | _OF.get(kind, set())).isdisjoint(schema):
            return _by_grammar(place)
        make: dict[str, Callable[[], _Node]] = {
            "object": lambda: self._object(schema, plain, place),
            "array": lambda: self._array(schema, plain, place),
            "string": lambda: self._string(plain, place),
            "integer": lambda: _Value(leaves.number(plain, whole=True)),
            "number": lambda: _Value(leaves.number(plain, whole=False)),
            "boolean": lambda: self._boolean(place),
            "null": lambda: _Known("null"),
        }
        node = make[kind]()
        return _or(node, None) if "null" in kinds and kind != "null" else node

    def _object(self, schema: Schema, plain: Plain, place: Place) -> _Node:
        listed = schema.get("properties", {})
        if not set(plain.required) <= set(listed):
            return _by_grammar(place)
        if not listed:
            closed = schema.get("additionalProperties") is False
            return _Known("{}") if closed else _by_grammar(place)
        properties: dict[str, tuple[str, _Node]] = {}
        for name, own in listed.items():
            if own is False and name not in plain.required:
                continue
            at = inside(place, "properties", name)
            node = self.node(at)
            if name not in plain.required:
                node = _or(node, _ABSENT)
            properties[name] = (self._label(name, at), node)
        return _Object(properties)

    def _label(self, name: str, place: Place) -> str:
        """Return how a question names a property: by its description, title or name."""
        schema = self._document.at(place)
        if not isinstance(schema, dict):
            return name
        if not _NAMING & set(schema) and "$ref" in schema:
            return self._label(name, self._document.target(place, schema["$ref"]))
        description, title = (
            str(schema.get(key) or "").strip() for key in ("description", "title")
        )
        if re.sub(r"[\s_]", "", title).lower() == name.replace("_", "").lower():
            title = ""  # generated from the name, as pydantic does
        return description[:_LONGEST].rstrip("。.") or title or name

    def _array(self, schema: Schema, plain: Plain, place: Place) -> _Node:
        least, most = plain.limit("minItems", 0), plain.limit("maxItems", None)
        items = schema.get("items", True)
        if isinstance(items, list) or (items is False and least):
            return _by_grammar(place)
        if most == 0 or items is False:
            return _Known("[]")
        unique = plain.unique is not None
        item = self.node(inside(place, "items")) if "items" in schema else _anything()
        if (unique and least > 1) or _is_grammar(item):
            return _by_grammar(place)
        if isinstance(item, _Value) and item.leaf.listable and not item.leaf.strict:
            leaf = leaves.several(item.leaf, least, most, unique=unique)
            return _Value(leaf if least else leaves.or_absent(leaf, []))
        last = 1 if unique else max(least, _MOST_ITEMS) if most is None else most
        fitting = self._most // max(1, item.count.most)
        counts = range(least, max(least, min(last, _MOST_ITEMS, fitting)) + 1)
        return _Items(item, counts, leaves.one_of({str(count): count for count in counts}))

    def _string(self, plain: Plain, place: Place) -> _Node:
        least, most = plain.limit("minLength", 0), plain.limit("maxLength", None)
        patterns = [pattern for _, pattern in plain.patterns]
        forms = [name for name in plain.formats if name in leaves.FORMATS]
        if not patterns and not forms:
            return _Value(leaves.text(least, most))
        if least or most is not None or len(patterns) + len(forms) > 1:
            return _by_grammar(place)
        if forms:
            self._spell(FORMATS[forms[0]], inside(place, "format"))
            return _Value(leaves.formed(forms[0]))
        return _Value(leaves.matching(_unanchored(patterns[0]), plain.patterns[0][0]))

    def _boolean(self, place: Place) -> _Node:
        words = {"はい": True, "いいえ": False}
        try:
            spelled = {self._spell(word, place): value for word, value in words.items()}
        except ParameterError:  # a vocabulary for another language
            return _Value(leaves.one_of({_dump(value): value for value in (True, False)}))
        return _Value(leaves.one_of(spelled, hint="はいかいいえで答えてください。"))

    def _one_of(self, some: Sequence[Plain], place: Place) -> _Node:
        """Return a choice among listed values."""
        values = {
            canonical(value): (value, own)
            for plain in some
            for own, value in plain.values or ()
            if fits(value, plain, self._alternatives)
        }
        if not values:
            raise ParameterError("{path}: no value can follow the schema.", path=place)
        if len(values) == 1:
            return _Known(*(_dump(value) for value, _ in values.values()))
        return _Value(leaves.one_of({self._spelled(v, own): v for v, own in values.values()}))

    def _spelled(self, value: object, place: Place) -> str:
        text = value if isinstance(value, str) else "" if value is None else _dump(value)
        return self._spell(" ".join(text.split()) or "なし", place).strip()


def _by_grammar(place: Place) -> _Node:
    """Return a leaf whose value is JSON that follows the schema at `place`."""
    return _Value(leaves.by_grammar(place))


def _is_grammar(node: _Node) -> bool:
    return isinstance(node, _Value) and node.leaf.ask.place is not None


def _anything() -> _Node:
    return _Value(leaves.text(0, None))


def _or(node: _Node, absent: object) -> _Node:
    """Return the node; if it is a leaf, its value may be absent."""
    return _Value(leaves.or_absent(node.leaf, absent)) if isinstance(node, _Value) else node


def _constrains(schema: Schema, but: set[str]) -> bool:
    """Return whether `schema` has constraining keywords other than `but`."""
    return not _CONSTRAINING.isdisjoint(set(schema) - but)


def _implied(schema: Schema) -> str:
    """Return the type that the keywords of a schema without `type` apply to."""
    for kind, names in (
        ("object", ("properties", "required", "additionalProperties")),
        ("array", ("items", "minItems", "maxItems")),
        ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    ):
        if any(name in schema for name in names):
            return kind
    return "string"


def _unanchored(pattern: str) -> str:
    """Remove the anchors of a pattern that must match a text as a whole."""
    pattern = pattern.removeprefix("^")
    return re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", pattern)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
