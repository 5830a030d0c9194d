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
from issun.runtime.constraint.flat_schema import FlatSchema, canonical
from issun.runtime.constraint.references import Document, Place, inside
from issun.runtime.constraint.strings import FORMATS
from issun.runtime.constraint.validation import satisfies_keywords
from issun.runtime.errors import ParameterError
from issun.runtime.leaves import Leaf, Query

Schema = dict[str, Any]
FillSteps = Generator[str | Query, str, None]
# (text, its place in the schema) -> the text as the model can write it; raises ParameterError.
Spell = Callable[[str, str], str]

_MAX_NODES = 500  # of one plan: references may expand to an unreasonable number
_LONGEST = 60  # characters of a description that are used as a label
_MAX_ITEMS = 5  # objects of an array without maxItems
_ABSENT = object()
_LABEL_KEYWORDS = {"title", "description"}
# Keywords that constrain a value, by the type that they apply to.
_ANY_TYPE_KEYWORDS = {
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "$dynamicRef",
    "$recursiveRef",
}
_TYPE_KEYWORDS = {
    "object": {
        *("patternProperties", "propertyNames", "minProperties", "maxProperties", "dependencies"),
        *("dependentRequired", "dependentSchemas"),
    },
    "array": {"prefixItems", "contains", "unevaluatedItems"},
    "string": {"contentEncoding", "contentMediaType", "contentSchema"},
}
_CONSTRAINING = _ANY_TYPE_KEYWORDS.union(
    *_TYPE_KEYWORDS.values(),
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
    def queries(self) -> list[Query]:
        """All queries that may be asked, so that their constraints can be compiled in advance."""
        return list(self._root.queries())

    @property
    def count(self) -> Count:
        """How many values the model is asked for."""
        return self._root.count

    def fill(self, question: str) -> FillSteps:
        """Yield fixed JSON text and queries; send the reply to each query.

        `question` is the user's text, which replies may repeat.
        """
        return self._root.fill("", question)


def make_plan(
    schema: Schema, spell: Spell = lambda text, path: text, *, most: int = _MAX_NODES
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
class _Fixed:
    """Fixed text, which needs no model."""

    text: str
    count: ClassVar[Count] = Count(0, 0)

    def queries(self) -> Iterator[Query]:
        return iter(())

    def fill(self, label: str, question: str) -> FillSteps:
        yield self.text


@dataclass(frozen=True, slots=True)
class _LeafNode:
    """One leaf value."""

    leaf: Leaf
    count: ClassVar[Count] = Count(1, 1)

    def queries(self) -> Iterator[Query]:
        yield from self.leaf.queries

    def fill(self, label: str, question: str) -> FillSteps:
        value = yield from self.leaf.value(label, question)
        yield _dump(value)


@dataclass(frozen=True, slots=True)
class _ObjectNode:
    """An object: the label and the node of each property."""

    properties: Mapping[str, tuple[str, _Node]]

    @property
    def count(self) -> Count:
        counts = [node.count for _, node in self.properties.values()]
        return Count(sum(c.least for c in counts), sum(c.most for c in counts))

    def queries(self) -> Iterator[Query]:
        for _, node in self.properties.values():
            yield from node.queries()

    def fill(self, label: str, question: str) -> FillSteps:
        before = "{"
        for name, (own, node) in self.properties.items():
            called = f"{label}の{own}" if label else own
            key = f"{before}{_dump(name)}:"
            if isinstance(node, _LeafNode):
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
class _ListNode:
    """A list of objects or lists: the model is asked for their number, then for each item."""

    item: _Node
    counts: range
    number: Leaf

    @property
    def count(self) -> Count:
        one = self.item.count
        return Count(1 + self.counts[0] * one.least, 1 + self.counts[-1] * one.most)

    def queries(self) -> Iterator[Query]:
        yield from self.number.queries
        yield from self.item.queries()

    def fill(self, label: str, question: str) -> FillSteps:
        count = yield from self.number.value(f"{label}はいくつありますか", question)
        yield "["
        for place in range(count):
            if place:
                yield ","
            yield from self.item.fill(f"{place + 1}番目の{label}", question)
        yield "]"


_Node = _Fixed | _LeafNode | _ObjectNode | _ListNode


class _Planner:
    """Converts the subschemas of one schema to nodes."""

    def __init__(self, schema: Schema, spell: Spell, most: int) -> None:
        self._document, self._spell, self._count = Document(schema), spell, 0
        self._most = most
        self._alternatives = Alternatives(self._document)
        self._resolving = ["#"]  # targets of the references that are being resolved

    def node(self, place: Place) -> _Node:
        """Return the node of the schema at `place`; ParameterError if it is unsatisfiable."""
        node = self._unplaced(place)
        return _LeafNode(leaves.at_path(node.leaf, place)) if isinstance(node, _LeafNode) else node

    def _unplaced(self, place: Place) -> _Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _NoSkeletonError
        alternatives = self._alternatives.of((place,))
        if not alternatives:
            raise ParameterError("{path}: no value can follow the schema.", path=place)
        schema = self._document.at(place)
        if not isinstance(schema, dict):
            return _anything()
        if all(flat.values is not None for flat in alternatives):
            return self._choice(alternatives, place)
        if "$ref" in schema:
            return self._reference(schema, place)
        return self._combined(schema, place) or self._typed(schema, alternatives[0], place)

    def _reference(self, schema: Schema, place: Place) -> _Node:
        target = self._document.target(place, schema["$ref"])
        if target in self._resolving or _constrains(schema, {"$ref"}):
            return _json_value(place)
        self._resolving.append(target)
        try:
            return self.node(target)
        finally:
            self._resolving.pop()

    def _combined(self, schema: Schema, place: Place) -> _Node | None:
        """Handle a combination of one schema with null, or of a single schema."""
        name = next((name for name in ("anyOf", "oneOf", "allOf") if name in schema), None)
        if name is None:
            return None
        branches = schema[name]
        filled = [b for b in branches if not (isinstance(b, dict) and b.get("type") == "null")]
        nullable = len(filled) < len(branches)
        if len(filled) != 1 or (nullable and name == "allOf"):
            return _json_value(place)
        if _constrains(schema, {name} if nullable else {name, "type"}):
            return _json_value(place)
        node = self.node(inside(place, name, branches.index(filled[0])))
        return _optional(node, None) if nullable else node

    def _typed(self, schema: Schema, flat: FlatSchema, place: Place) -> _Node:
        kinds = schema.get("type", _implied(schema))
        kinds = [kinds] if isinstance(kinds, str) else kinds
        kind = next((k for k in kinds if k != "null"), "null")
        if not (_ANY_TYPE_KEYWORDS | _TYPE_KEYWORDS.get(kind, set())).isdisjoint(schema):
            return _json_value(place)
        make: dict[str, Callable[[], _Node]] = {
            "object": lambda: self._object(schema, flat, place),
            "array": lambda: self._array(schema, flat, place),
            "string": lambda: self._string(flat, place),
            "integer": lambda: _LeafNode(leaves.number(flat, whole=True)),
            "number": lambda: _LeafNode(leaves.number(flat, whole=False)),
            "boolean": lambda: self._boolean(place),
            "null": lambda: _Fixed("null"),
        }
        node = make[kind]()
        return _optional(node, None) if "null" in kinds and kind != "null" else node

    def _object(self, schema: Schema, flat: FlatSchema, place: Place) -> _Node:
        listed = schema.get("properties", {})
        if not set(flat.required) <= set(listed):
            return _json_value(place)
        if not listed:
            closed = schema.get("additionalProperties") is False
            return _Fixed("{}") if closed else _json_value(place)
        properties: dict[str, tuple[str, _Node]] = {}
        for name, own in listed.items():
            if own is False and name not in flat.required:
                continue
            at = inside(place, "properties", name)
            node = self.node(at)
            if name not in flat.required:
                node = _optional(node, _ABSENT)
            properties[name] = (self._label(name, at), node)
        return _ObjectNode(properties)

    def _label(self, name: str, place: Place) -> str:
        """Return how a question names a property: by its description, title or name."""
        schema = self._document.at(place)
        if not isinstance(schema, dict):
            return name
        if not _LABEL_KEYWORDS & set(schema) and "$ref" in schema:
            return self._label(name, self._document.target(place, schema["$ref"]))
        description, title = (
            str(schema.get(key) or "").strip() for key in ("description", "title")
        )
        if re.sub(r"[\s_]", "", title).lower() == name.replace("_", "").lower():
            title = ""  # generated from the name, as pydantic does
        return description[:_LONGEST].rstrip("。.") or title or name

    def _array(self, schema: Schema, flat: FlatSchema, place: Place) -> _Node:
        least, most = flat.limit("minItems", 0), flat.limit("maxItems", None)
        items = schema.get("items", True)
        if isinstance(items, list) or (items is False and least):
            return _json_value(place)
        if most == 0 or items is False:
            return _Fixed("[]")
        unique = flat.unique is not None
        item = self.node(inside(place, "items")) if "items" in schema else _anything()
        if (unique and least > 1) or _is_grammar(item):
            return _json_value(place)
        if isinstance(item, _LeafNode) and item.leaf.listable and not item.leaf.fallback:
            leaf = leaves.list_of(item.leaf, least, most, unique=unique)
            return _LeafNode(leaf if least else leaves.optional(leaf, []))
        last = 1 if unique else max(least, _MAX_ITEMS) if most is None else most
        fitting = self._most // max(1, item.count.most)
        counts = range(least, max(least, min(last, _MAX_ITEMS, fitting)) + 1)
        return _ListNode(item, counts, leaves.one_of({str(count): count for count in counts}))

    def _string(self, flat: FlatSchema, place: Place) -> _Node:
        least, most = flat.limit("minLength", 0), flat.limit("maxLength", None)
        patterns = [pattern for _, pattern in flat.patterns]
        forms = [name for name in flat.formats if name in leaves.FORMATS]
        if not patterns and not forms:
            return _LeafNode(leaves.text(least, most))
        if least or most is not None or len(patterns) + len(forms) > 1:
            return _json_value(place)
        if forms:
            self._spell(FORMATS[forms[0]], inside(place, "format"))
            return _LeafNode(leaves.with_format(forms[0]))
        return _LeafNode(leaves.with_pattern(_unanchored(patterns[0]), flat.patterns[0][0]))

    def _boolean(self, place: Place) -> _Node:
        words = {"はい": True, "いいえ": False}
        try:
            spelled = {self._spell(word, place): value for word, value in words.items()}
        except ParameterError:  # a vocabulary for another language
            return _LeafNode(leaves.one_of({_dump(value): value for value in (True, False)}))
        return _LeafNode(leaves.one_of(spelled, hint="はいかいいえで答えてください。"))

    def _choice(self, alternatives: Sequence[FlatSchema], place: Place) -> _Node:
        """Return a choice among listed values."""
        values = {
            canonical(value): (value, own)
            for flat in alternatives
            for own, value in flat.values or ()
            if satisfies_keywords(value, flat, self._alternatives)
        }
        if not values:
            raise ParameterError("{path}: no value can follow the schema.", path=place)
        if len(values) == 1:
            return _Fixed(*(_dump(value) for value, _ in values.values()))
        return _LeafNode(leaves.one_of({self._spelled(v, own): v for v, own in values.values()}))

    def _spelled(self, value: object, place: Place) -> str:
        text = value if isinstance(value, str) else "" if value is None else _dump(value)
        return self._spell(" ".join(text.split()) or "なし", place).strip()


def _json_value(place: Place) -> _Node:
    """Return a leaf whose value is JSON that follows the schema at `place`."""
    return _LeafNode(leaves.json_value(place))


def _is_grammar(node: _Node) -> bool:
    return isinstance(node, _LeafNode) and node.leaf.query.place is not None


def _anything() -> _Node:
    return _LeafNode(leaves.text(0, None))


def _optional(node: _Node, absent: object) -> _Node:
    """Return the node; if it is a leaf, its value may be absent."""
    return _LeafNode(leaves.optional(node.leaf, absent)) if isinstance(node, _LeafNode) else node


def _constrains(schema: Schema, ignored: set[str]) -> bool:
    """Return whether `schema` has constraining keywords other than `ignored`."""
    return not _CONSTRAINING.isdisjoint(set(schema) - ignored)


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
