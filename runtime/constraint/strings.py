"""The strings of a schema: the shortest one, and schemas with bounds."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from issun.runtime.constraint.budget import round_down
from issun.runtime.constraint.compiling import Compiler
from issun.runtime.constraint.flat_schema import FlatSchema
from issun.runtime.constraint.literals import dumps
from issun.runtime.constraint.references import inside
from issun.runtime.constraint.vocabulary import Vocabulary, unspellable_error

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

    def shortest(self, flat: FlatSchema) -> float:
        """Return the number of characters that suffices for a string; infinite if there is none.

        Raises ParameterError for an invalid pattern, and if no matching string can be spelled.
        """
        min_length = int(flat.limit("minLength", 0))
        formats = _supported_formats(flat)
        for name in formats:
            missing = self._vocabulary.unspellable(FORMATS[name])
            if missing:
                raise unspellable_error(FORMATS[name], missing, inside(flat.place, "format"))
        max_length = flat.limit("maxLength", math.inf)
        if not flat.patterns and len(formats) < 2:
            found = max([min_length, *(len(FORMATS[name]) for name in formats)])
            return found if found <= max_length else math.inf
        return self._shortest(flat.patterns, formats, min_length, max_length, flat.place)

    def fit(self, flat: FlatSchema, budget: int) -> dict[str, Any]:
        """Return a schema of strings for `flat` in `budget` tokens, or a few more if needed."""
        bound = min(
            flat.limit("maxLength", math.inf), max(round_down(budget - 2), self.shortest(flat))
        )
        return self._schema(
            flat.patterns, _supported_formats(flat), flat.limit("minLength", 0), int(bound)
        )

    def _find_shortest(
        self,
        patterns: tuple[tuple[str, str], ...],
        formats: tuple[str, ...],
        min_length: int,
        max_length: float,
        place: str,
    ) -> float:
        tried = [
            min_length,
            *(min_length + (1 << doubled) for doubled in range(_LONGEST.bit_length())),
        ]
        trial_bounds = sorted({int(min(bound, max_length)) for bound in tried})
        path = patterns[0][0] if patterns else place
        options = "x-guidance", {"json_allowed_escapes": ESCAPES}
        rules = [
            "start: %json "
            + dumps(dict([options]) | self._schema(patterns, formats, min_length, bound))
            for bound in (*trial_bounds, None)  # None: are there any longer strings?
        ]
        found = self._compiler.first_satisfiable_in_bytes(rules, path)
        if found is None:
            shown = patterns[0][1] if patterns else formats[0]
            raise self._vocabulary.no_match_error(shown, path)
        if found < len(trial_bounds):
            return trial_bounds[found]
        return math.inf if trial_bounds[-1] == max_length else trial_bounds[-1]

    def _schema(
        self,
        patterns: tuple[tuple[str, str], ...],
        formats: tuple[str, ...],
        min_length: int,
        max_length: int | None,
    ) -> dict[str, Any]:
        texts = dict.fromkeys(pattern for _, pattern in patterns)
        rules: list[dict[str, Any]] = [{"pattern": pattern} for pattern in texts]
        rules += [{"format": name} for name in formats]
        if patterns:
            alphabet = self._vocabulary.restriction("".join(texts), in_json=True)
            rules += [{"pattern": f"^{alphabet}$"}] if alphabet else []
        schema: dict[str, Any] = {"type": "string"}
        if max_length is not None:
            schema["maxLength"] = max_length
        if min_length:
            schema["minLength"] = min_length
        if len(rules) > 1:
            return schema | {"allOf": rules}
        return schema | (rules[0] if rules else {})


def _supported_formats(flat: FlatSchema) -> tuple[str, ...]:
    return tuple(sorted(set(flat.formats) & FORMATS.keys()))
