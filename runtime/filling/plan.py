"""The plan for filling the JSON of one schema: its fixed text, and the values to ask for."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from issun.runtime.constraint.literals import dumps
from issun.runtime.filling.leaves import Leaf, Query

FillSteps = Generator[str | Query, str, None]  # JSON text and queries; replies are sent in

ABSENT = object()  # the value of an optional property that has none


class Count(NamedTuple):
    """The fewest and the most values that the model is asked for."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How to fill the JSON of one schema."""

    _root: Node

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


@dataclass(frozen=True, slots=True)
class Fixed:
    """Fixed text, which needs no model."""

    text: str
    count: ClassVar[Count] = Count(0, 0)

    def queries(self) -> Iterator[Query]:
        """Yield all queries that may be asked."""
        return iter(())

    def fill(self, label: str, question: str) -> FillSteps:
        """Yield JSON text and queries; `label` is what questions call the value."""
        yield self.text


@dataclass(frozen=True, slots=True)
class LeafNode:
    """One leaf value."""

    leaf: Leaf
    count: ClassVar[Count] = Count(1, 1)

    def queries(self) -> Iterator[Query]:
        """Yield all queries that may be asked."""
        yield from self.leaf.queries

    def fill(self, label: str, question: str) -> FillSteps:
        """Yield JSON text and queries; `label` is what questions call the value."""
        value = yield from self.leaf.value(label, question)
        yield dumps(value)


@dataclass(frozen=True, slots=True)
class ObjectNode:
    """An object: the label and the node of each property."""

    properties: Mapping[str, tuple[str, Node]]

    @property
    def count(self) -> Count:
        """How many values the model is asked for."""
        counts = [node.count for _, node in self.properties.values()]
        return Count(sum(c.least for c in counts), sum(c.most for c in counts))

    def queries(self) -> Iterator[Query]:
        """Yield all queries that may be asked."""
        for _, node in self.properties.values():
            yield from node.queries()

    def fill(self, label: str, question: str) -> FillSteps:
        """Yield JSON text and queries; `label` is what questions call the value."""
        separator = "{"
        for name, (own_label, node) in self.properties.items():
            full_label = f"{label}の{own_label}" if label else own_label
            key = f"{separator}{dumps(name)}:"
            if isinstance(node, LeafNode):
                value = yield from node.leaf.value(full_label, question)
                if value is ABSENT:
                    continue
                yield key + dumps(value)
            else:
                yield key
                yield from node.fill(full_label, question)
            separator = ","
        yield "{}" if separator == "{" else "}"


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list of objects or lists: the model is asked for their number, then for each item."""

    item: Node
    counts: range
    number: Leaf

    @property
    def count(self) -> Count:
        """How many values the model is asked for."""
        item = self.item.count
        return Count(1 + self.counts[0] * item.least, 1 + self.counts[-1] * item.most)

    def queries(self) -> Iterator[Query]:
        """Yield all queries that may be asked."""
        yield from self.number.queries
        yield from self.item.queries()

    def fill(self, label: str, question: str) -> FillSteps:
        """Yield JSON text and queries; `label` is what questions call the value."""
        count = yield from self.number.value(f"{label}はいくつありますか", question)
        yield "["
        for index in range(count):
            if index:
                yield ","
            yield from self.item.fill(f"{index + 1}番目の{label}", question)
        yield "]"


Node = Fixed | LeafNode | ObjectNode | ListNode
