"""Turns a JSON schema into a plan: fixed text, and the leaf values that a model has to write.

The skeleton is made of the listed properties of objects. For an optional property or a value that
may be null, the model may answer that there is none. A schema without a fixed skeleton becomes one
leaf, which is written by the schema's grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.flat_schema import FlatSchema, canonical
from issun.runtime.constraint.literals import dumps
from issun.runtime.constraint.references import Document, Place, inside
from issun.runtime.constraint.strings import FORMATS
from issun.runtime.constraint.validation import satisfies_keywords
from issun.runtime.errors import ParameterError
from issun.runtime.filling import leaves
from issun.runtime.filling.plan import ABSENT, Fixed, LeafNode, ListNode, Node, ObjectNode, Plan

Schema = dict[str, Any]
# (text, its place in the schema) -> the text as the model can write it; raises ParameterError.
Spell = Callable[[str, str], str]

_MAX_NODES = 500  # of one plan: references may expand to an unreasonable number
_MAX_LABEL = 60  # characters of a description that are used as a label
_MAX_ITEMS = 5  # objects of an array without maxItems
_LABEL_KEYWORDS = {"title", "description"}
# Keywords that constrain a value, by the type that they apply to.
_ANY_TYPE_KEYWORDS = {
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$dynamicRef", "$recursiveRef")
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


def make_plan(
    schema: Schema,
    spell: Spell = lambda text, path: text,
    *,
    most: int = _MAX_NODES,
    effort: Effort | None = None,
) -> Plan | None:
    """Return a plan for `schema`; None if only the grammar of the whole schema can describe it.

    The plan asks for at most `most` values if its lists can be that short.

    Raises ParameterError for an invalid or unsatisfiable schema, for one that takes too much
    `effort`, and for a text in it that the vocabulary cannot spell.
    """
    try:
        root = _Planner(schema, spell, most, effort).node("#")
    except RecursionError as error:
        raise ParameterError("The schema is too large: simplify it.") from error
    except _NoSkeletonError:
        return None
    return None if _is_grammar(root) else Plan(root)


class _NoSkeletonError(Exception):
    """The schema has parts that cannot be filled separately."""


class _Planner:
    """Converts the subschemas of one schema to nodes."""

    def __init__(self, schema: Schema, spell: Spell, most: int, effort: Effort | None) -> None:
        self._document, self._spell, self._count = Document(schema), spell, 0
        self._most = most
        self._alternatives = Alternatives(self._document, effort)
        self._resolving = ["#"]  # targets of the references that are being resolved

    def node(self, place: Place) -> Node:
        """Return the node of the schema at `place`; ParameterError if it is unsatisfiable."""
        node = self._make_node(place)
        return LeafNode(leaves.at_place(node.leaf, place)) if isinstance(node, LeafNode) else node

    def _make_node(self, place: Place) -> Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _NoSkeletonError
        alternatives = self._alternatives.of((place,))
        if not alternatives:
            raise ParameterError("{path}: no value satisfies the schema.", path=place)
        schema = self._document.at(place)
        if not isinstance(schema, dict):
            return _anything()
        if all(flat.values is not None for flat in alternatives):
            return self._choice(alternatives, place)
        if "$ref" in schema:
            return self._reference(schema, place)
        return self._combined(schema, place) or self._typed(schema, alternatives[0], place)

    def _reference(self, schema: Schema, place: Place) -> Node:
        target = self._document.target(place, schema["$ref"])
        if target in self._resolving or _constrains(schema, {"$ref"}):
            return _json_value(place)
        self._resolving.append(target)
        try:
            return self.node(target)
        finally:
            self._resolving.pop()

    def _combined(self, schema: Schema, place: Place) -> Node | None:
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

    def _typed(self, schema: Schema, flat: FlatSchema, place: Place) -> Node:
        kinds = schema.get("type", _implied(schema))
        kinds = [kinds] if isinstance(kinds, str) else kinds
        kind = next((k for k in kinds if k != "null"), "null")
        if not (_ANY_TYPE_KEYWORDS | _TYPE_KEYWORDS.get(kind, set())).isdisjoint(schema):
            return _json_value(place)
        make: dict[str, Callable[[], Node]] = {
            "object": lambda: self._object(schema, flat, place),
            "array": lambda: self._array(schema, flat, place),
            "string": lambda: self._string(flat, place),
            "integer": lambda: LeafNode(leaves.number(flat, whole=True)),
            "number": lambda: LeafNode(leaves.number(flat, whole=False)),
            "boolean": lambda: self._boolean(place),
            "null": lambda: Fixed("null"),
        }
        node = make[kind]()
        return _optional(node, None) if "null" in kinds and kind != "null" else node

    def _object(self, schema: Schema, flat: FlatSchema, place: Place) -> Node:
        listed = schema.get("properties", {})
        if not set(flat.required) <= set(listed):
            return _json_value(place)
        if not listed:
            closed = schema.get("additionalProperties") is False
            return Fixed("{}") if closed else _json_value(place)
        properties: dict[str, tuple[str, Node]] = {}
        for name, own in listed.items():
            if own is False and name not in flat.required:
                continue
            at = inside(place, "properties", name)
            node = self.node(at)
            if name not in flat.required:
                node = _optional(node, ABSENT)
            properties[name] = (self._label(name, at), node)
        return ObjectNode(properties)

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
        return description[:_MAX_LABEL].rstrip("。.") or title or name

    def _array(self, schema: Schema, flat: FlatSchema, place: Place) -> Node:
        least, most = flat.limit("minItems", 0), flat.limit("maxItems", None)
        items = schema.get("items", True)
        if isinstance(items, list) or (items is False and least):
            return _json_value(place)
        if most == 0 or items is False:
            return Fixed("[]")
        unique = flat.unique is not None
        item = self.node(inside(place, "items")) if "items" in schema else _anything()
        if (unique and least > 1) or least > leaves.MAX_LISTED or _is_grammar(item):
            return _json_value(place)
        if isinstance(item, LeafNode) and item.leaf.listable and not item.leaf.fallback:
            leaf = leaves.list_of(item.leaf, least, most, unique=unique)
            return LeafNode(leaf if least else leaves.optional(leaf, []))
        last = 1 if unique else max(least, _MAX_ITEMS) if most is None else most
        fitting = self._most // max(1, item.count.most)
        counts = range(least, max(least, min(last, _MAX_ITEMS, fitting)) + 1)
        return ListNode(item, counts, leaves.one_of({str(count): count for count in counts}))

    def _string(self, flat: FlatSchema, place: Place) -> Node:
        least, most = flat.limit("minLength", 0), flat.limit("maxLength", None)
        patterns = [pattern for _, pattern in flat.patterns]
        forms = [name for name in flat.formats if name in leaves.FORMATS]
        if not patterns and not forms:
            return LeafNode(leaves.text(least, most))
        if least or most is not None or len(patterns) + len(forms) > 1:
            return _json_value(place)
        if forms:
            self._spell(FORMATS[forms[0]], inside(place, "format"))
            return LeafNode(leaves.with_format(forms[0]))
        return LeafNode(leaves.with_pattern(_unanchored(patterns[0]), flat.patterns[0][0]))

    def _boolean(self, place: Place) -> Node:
        words = {"はい": True, "いいえ": False}
        try:
            spelled = {self._spell(word, place): value for word, value in words.items()}
        except ParameterError:  # a vocabulary for another language
            return LeafNode(leaves.one_of({dumps(value): value for value in (True, False)}))
        return LeafNode(leaves.one_of(spelled, hint="はいかいいえで答えてください。"))

    def _choice(self, alternatives: Sequence[FlatSchema], place: Place) -> Node:
        """Return a choice among listed values."""
        values = {
            canonical(value): (value, own)
            for flat in alternatives
            for own, value in flat.values or ()
            if satisfies_keywords(value, flat, self._alternatives)
        }
        if not values:
            raise ParameterError("{path}: no value satisfies the schema.", path=place)
        if len(values) == 1:
            return Fixed(*(dumps(value) for value, _ in values.values()))
        return LeafNode(leaves.one_of({self._spelled(v, own): v for v, own in values.values()}))

    def _spelled(self, value: object, place: Place) -> str:
        text = value if isinstance(value, str) else "" if value is None else dumps(value)
        return self._spell(" ".join(text.split()) or "なし", place).strip()


def _json_value(place: Place) -> Node:
    """Return a leaf whose value is JSON that follows the schema at `place`."""
    return LeafNode(leaves.json_value(place))


def _is_grammar(node: Node) -> bool:
    return isinstance(node, LeafNode) and node.leaf.query.place is not None


def _anything() -> Node:
    return LeafNode(leaves.text(0, None))


def _optional(node: Node, absent: object) -> Node:
    """Return the node; if it is a leaf, its value may be absent."""
    return LeafNode(leaves.optional(node.leaf, absent)) if isinstance(node, LeafNode) else node


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
