"""The strings of a schema: the shortest one, and schemas with bounds."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from issun.runtime.constraint.compiling import Compiler
from issun.runtime.constraint.literals import dumps
from issun.runtime.constraint.plain import Plain
from issun.runtime.constraint.references import inside
from issun.runtime.constraint.steps import step
from issun.runtime.constraint.vocabulary import Vocabulary, cannot_spell

# The formats that grammars support, each with a shortest text.
FORMATS = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "a@b",
    "hostname": "a",
    "ipv4": "0.0.0.0",  # noqa: S104
    "ipv6": "::",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "uri": "a:b",
}
_LONGEST = 1 << 10  # characters to which the search for a shortest match is limited
# No \uXXXX: it is only needed for control characters, which are never intended.
ESCAPES = 'nrbtf"\\'


class Strings:
    """The strings of a schema, as one vocabulary can spell them."""

    def __init__(self, vocabulary: Vocabulary, compiler: Compiler) -> None:
        self._vocabulary, self._compiler = vocabulary, compiler
        self._shortest = cache(self._find_shortest)

    def shortest(self, plain: Plain) -> float:
        """Return the number of characters that suffices for a string; infinite if there is none.

        Raises ParameterError for an invalid pattern, and if no matching string can be spelled.
        """
        least = int(plain.limit("minLength", 0))
        formats = _known(plain)
        for name in formats:
            missing = self._vocabulary.unspellable(FORMATS[name])
            if missing:
                raise cannot_spell(FORMATS[name], missing, inside(plain.place, "format"))
        most = plain.limit("maxLength", math.inf)
        if not plain.patterns and len(formats) < 2:
            found = max([least, *(len(FORMATS[name]) for name in formats)])
            return found if found <= most else math.inf
        return self._shortest(plain.patterns, formats, least, most, plain.place)

    def fit(self, plain: Plain, room: int) -> dict[str, Any]:
        """Return a schema of strings for `plain` in `room` tokens, or a few more if needed."""
        bound = min(plain.limit("maxLength", math.inf), max(step(room - 2), self.shortest(plain)))
        return self._schema(plain.patterns, _known(plain), plain.limit("minLength", 0), int(bound))

    def _find_shortest(
        self,
        patterns: tuple[tuple[str, str], ...],
        formats: tuple[str, ...],
        least: int,
        most: float,
        place: str,
    ) -> float:
        tried = [least, *(least + (1 << doubled) for doubled in range(_LONGEST.bit_length()))]
        bounds = sorted({int(min(bound, most)) for bound in tried})
        path = patterns[0][0] if patterns else place
        options = "x-guidance", {"json_allowed_escapes": ESCAPES}
        rules = [
            "start: %json " + dumps(dict([options]) | self._schema(patterns, formats, least, bound))
            for bound in (*bounds, None)  # None: are there any longer strings?
        ]
        found = self._compiler.first_possible(rules, path)
        if found is None:
            told = patterns[0][1] if patterns else formats[0]
            raise self._vocabulary.nothing_spells(told, path)
        if found < len(bounds):
            return bounds[found]
        return math.inf if bounds[-1] == most else bounds[-1]

    def _schema(
        self,
        patterns: tuple[tuple[str, str], ...],
        formats: tuple[str, ...],
        least: int,
        most: int | None,
    ) -> dict[str, Any]:
        texts = dict.fromkeys(pattern for _, pattern in patterns)
        rules: list[dict[str, Any]] = [{"pattern": pattern} for pattern in texts]
        rules += [{"format": name} for name in formats]
        if patterns:
            alphabet = self._vocabulary.restriction("".join(texts), in_json=True)
            rules += [{"pattern": f"^{alphabet}$"}] if alphabet else []
        schema: dict[str, Any] = {"type": "string"}
        if most is not None:
            schema["maxLength"] = most
        if least:
            schema["minLength"] = least
        if len(rules) > 1:
            return schema | {"allOf": rules}
        return schema | (rules[0] if rules else {})


def _known(plain: Plain) -> tuple[str, ...]:
    return tuple(sorted(set(plain.formats) & FORMATS.keys()))
