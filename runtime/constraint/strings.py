"""Strings of a schema: how short they can be, and schemas of bounded ones."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from issun.runtime.constraint.compiling import first_possible
from issun.runtime.constraint.literals import dumps
from issun.runtime.constraint.plain import Plain
from issun.runtime.constraint.steps import step
from issun.runtime.constraint.vocabulary import Vocabulary

# The formats that grammars follow; others say nothing, as the standard has it.
FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
_LONGEST = 1 << 12  # characters of a pattern's shortest match
# No \uXXXX: it is for control characters, which nobody means.
ESCAPES = 'nrbtf"\\'


class Strings:
    """The strings of a schema, as one vocabulary can spell them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._shortest = cache(self._find_shortest)

    def shortest(self, plain: Plain) -> int:
        """Characters that suffice for a string that follows `plain`.

        Raises ParameterError for a bad pattern, and where nothing that follows can be spelled.
        """
        rules = (plain.patterns, frozenset(plain.formats) & FORMATS)
        least = int(plain.limit("minLength", 0))
        return self._shortest(*rules, least, plain.place) if any(rules) else least

    def fit(self, plain: Plain, room: int) -> dict[str, Any]:
        """The schema of strings that follow `plain` in `room` tokens, or a few more if need be."""
        bound = max(step(room - 2), self.shortest(plain))
        bound = min(bound, plain.limit("maxLength", math.inf))
        formats = frozenset(plain.formats) & FORMATS
        return self._schema(plain.patterns, formats, plain.limit("minLength", 0), int(bound))

    def _find_shortest(
        self,
        patterns: tuple[tuple[str, str], ...],
        formats: frozenset[str],
        least: int,
        place: str,
    ) -> int:
        bounds = [least, *(least + (1 << doubled) for doubled in range(_LONGEST.bit_length()))]
        path = patterns[0][0] if patterns else place
        options = "x-guidance", {"json_allowed_escapes": ESCAPES}
        rules = [
            "start: %json " + dumps(dict([options]) | self._schema(patterns, formats, least, bound))
            for bound in bounds
        ]
        found = first_possible(rules, path)
        if found is None:
            told = patterns[0][1] if patterns else min(formats)
            raise self._vocabulary.nothing_spells(told, path)
        return bounds[found]

    def _schema(
        self,
        patterns: tuple[tuple[str, str], ...],
        formats: frozenset[str],
        least: int,
        most: int,
    ) -> dict[str, Any]:
        rules: list[dict[str, Any]] = [{"pattern": pattern} for _, pattern in patterns]
        rules += [{"format": name} for name in sorted(formats)]
        told = "".join(pattern for _, pattern in patterns)
        # Two rules may have nothing in common but what cannot be spelled.
        alone = "" if len(rules) == 1 and not formats else r"\x"
        alphabet = self._vocabulary.restriction(told + alone, in_json=True) if rules else None
        if alphabet and not (formats and not patterns and self._plain_text()):
            rules.append({"pattern": f"^{alphabet}$"})
        schema: dict[str, Any] = {"type": "string", "maxLength": most}
        if least:
            schema["minLength"] = least
        if len(rules) > 1:
            return schema | {"allOf": rules}
        return schema | (rules[0] if rules else {})

    def _plain_text(self) -> bool:
        """Whether all of ASCII's printable characters can be spelled, which are all of formats."""
        return self._vocabulary.unspellable("".join(map(chr, range(32, 127)))) is None
