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
from typing import Any, ClassVar, NamedTuple

from issun.runtime import leaves
from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.following import fits
from issun.runtime.constraint.plain import Plain, canonical
from issun.runtime.constraint.references import Document, Place, inside
from issun.runtime.constraint.strings import FORMATS
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


class Count(NamedTuple):
    """How many values are asked for, at least and at most."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How the JSON of one schema is filled."""

    _root: _Node

    @property
    def asks(self) -> list[Ask]:
        """Every kind of answer that may be asked for, so that all can be compiled before."""
        return list(self._root.asks())

    @property
    def count(self) -> Count:
        """How many values are asked for: the fewest, and the most."""
        return self._root.count

    def fill(self, question: str) -> Filling:
        """JSON text as far as it is known, and what the model is asked; answers are sent in.

        `question` is what the user asked, which answers may repeat.
        """
        return self._root.fill("", question)


def make_plan(
    schema: Schema,
    spell: Spell = lambda text, path: text,
    *,
    most: int = _MOST_NODES,
    effort: Effort | None = None,
) -> Plan | None:
    """A plan for `schema`; None where only the grammar of the whole can be followed.

    It asks for at most `most` values where its lists can be so short.

    Raises ParameterError for a schema that is wrong, that nothing follows or that takes too much
    `effort`, and for a text of it that the vocabulary cannot spell.
    """
    try:
        root = _Planner(schema, spell, most, effort).node("#")
    except RecursionError as error:
        raise ParameterError("The schema is too large: take a simpler one.") from error
    except _NoSkeletonError:
        return None
    return None if _is_grammar(root) else Plan(root)


class _NoSkeletonError(Exception):
    """The schema has parts that cannot be followed apart from the whole."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Text that no model is needed for."""

    text: str
    count: ClassVar[Count] = Count(0, 0)

    def asks(self) -> Iterator[Ask]:
        return iter(())

    def fill(self, label: str, question: str) -> Filling:
        yield self.text


@dataclass(frozen=True, slots=True)
class _Value:
    """One leaf."""

    leaf: Leaf
    count: ClassVar[Count] = Count(1, 1)

    def asks(self) -> Iterator[Ask]:
        yield from self.leaf.asks

    def fill(self, label: str, question: str) -> Filling:
        value = yield from self.leaf.value(label, question)
        yield _dump(value)


@dataclass(frozen=True, slots=True)
class _Object:
    """Properties by name: what each is called, and what is in it."""

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
    """A list of objects or lists: how many is asked first, then each by its place."""

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
    """Turns the places of one schema into nodes."""

    def __init__(self, schema: Schema, spell: Spell, most: int, effort: Effort | None) -> None:
        self._document, self._spell, self._count = Document(schema), spell, 0
        self._most = most
        self._alternatives = Alternatives(self._document, effort)
        self._open = ["#"]  # places that references lead to and that are being followed

    def node(self, place: Place) -> _Node:
        """What the schema at `place` becomes; raises ParameterError where no value follows it."""
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
        """A choice of schemas: of one and null, or of one alone."""
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
        """What a property is called in a question: its description or title, or else its name."""
        schema = self._document.at(place)
        if not isinstance(schema, dict):
            return name
        if not _NAMING & set(schema) and "$ref" in schema:
            return self._label(name, self._document.target(place, schema["$ref"]))
        description, title = (
            str(schema.get(key) or "").strip() for key in ("description", "title")
        )
        if re.sub(r"[\s_]", "", title).lower() == name.replace("_", "").lower():
            title = ""  # as pydantic makes one of the name
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
        if (unique and least > 1) or least > leaves.MOST_LISTED or _is_grammar(item):
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
        except ParameterError:  # a vocabulary of another language
            return _Value(leaves.one_of({_dump(value): value for value in (True, False)}))
        return _Value(leaves.one_of(spelled, hint="はいかいいえで答えてください。"))

    def _one_of(self, some: Sequence[Plain], place: Place) -> _Node:
        """One of the values that are listed, where all are."""
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
    """A leaf that is JSON by the schema at `place`."""
    return _Value(leaves.by_grammar(place))


def _is_grammar(node: _Node) -> bool:
    return isinstance(node, _Value) and node.leaf.ask.place is not None


def _anything() -> _Node:
    return _Value(leaves.text(0, None))


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


def _unanchored(pattern: str) -> str:
    """The same pattern for a whole text: what it finds somewhere, alone, it finds as well."""
    pattern = pattern.removeprefix("^")
    return re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", pattern)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
