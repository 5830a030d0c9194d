"""The places of a JSON schema, and the targets of its references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from issun.runtime.errors import ParameterError

Place = str  # a JSON pointer within the schema, such as "#/properties/名"
_DATA = ("enum", "const", "default", "examples", "example")  # these contain no schemas


class Document:
    """A JSON schema with its identifiers and anchors."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._bases: dict[Place, str] = {"#": ""}  # place of each resource -> its URI
        self._resources: dict[str, Place] = {"": "#"}
        self._anchors: dict[str, Place] = {}
        for place, base, node in _schemas(schema, "#", ""):
            if _identifier(node) is not None:
                self._bases[place] = base
                self._resources[base] = place
            for name in (node.get("$anchor"), node.get("$dynamicAnchor"), _old_anchor(node)):
                if isinstance(name, str):
                    self._anchors[f"{base}#{name}"] = place

    def at(self, place: Place) -> Any:
        """Return the value at `place`; raises LookupError if there is none."""
        node = self._schema
        for name in (n.replace("~1", "/").replace("~0", "~") for n in place.split("/")[1:]):
            if isinstance(node, list) and not name.isdecimal():
                raise KeyError(name)
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node

    def target(self, place: Place, reference: object) -> Place:
        """Return the place that `reference`, which is at `place`, points to.

        Raises ParameterError if that is not within the schema.
        """
        if isinstance(reference, str):
            url, fragment = urldefrag(urljoin(self._base(place), reference))
            resource, fragment = self._resources.get(url), unquote(fragment)
            if resource is not None and (not fragment or fragment.startswith("/")):
                found: Place | None = resource + fragment
            else:
                found = self._anchors.get(f"{url}#{fragment}")
            if found is not None and self._holds(found):
                return found
        raise ParameterError(
            "{path} refers to {reference!r}, which is not in the schema.",
            path=place,
            reference=reference,
        )

    def _holds(self, place: Place) -> bool:
        try:
            self.at(place)
        except (LookupError, TypeError, ValueError):
            return False
        return True

    def _base(self, place: Place) -> str:
        """Return the URI of the resource that contains `place`."""
        while place not in self._bases:
            place = place.rpartition("/")[0]
        return self._bases[place]


def inside(place: Place, *names: str | int) -> Place:
    """Append names to a JSON pointer."""
    escaped = (str(name).replace("~", "~0").replace("/", "~1") for name in names)
    return "/".join([place, *escaped])


def _schemas(node: Any, place: Place, base: str) -> Iterator[tuple[Place, str, dict[str, Any]]]:
    """Yield every object in `node` that may be a schema, with its place and its resource's URI."""
    if isinstance(node, dict):
        own = _identifier(node)
        here = base if own is None else urldefrag(urljoin(base, own)).url
        yield place, here, node
        names = place.endswith("/properties")
        for name, child in node.items():
            if names or name not in _DATA:
                yield from _schemas(child, inside(place, name), here)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _schemas(child, inside(place, index), base)


def _identifier(node: dict[str, Any]) -> str | None:
    own = node.get("$id", node.get("id"))
    return own if isinstance(own, str) and not own.startswith("#") else None


def _old_anchor(node: dict[str, Any]) -> str | None:
    """Return the anchor that drafts 4 to 7 define by an identifier that is a fragment."""
    own = node.get("$id", node.get("id"))
    return own[1:] if isinstance(own, str) and own.startswith("#") else None
