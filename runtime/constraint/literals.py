"""Spells the literals of a schema with the vocabulary."""

from __future__ import annotations

import json
from typing import Any

from issun.runtime.constraint.references import Place, inside
from issun.runtime.constraint.vocabulary import SHORT_ESCAPES, Vocabulary, unspellable_error
from issun.runtime.errors import ParameterError

_MAX_EXACT_INTEGER = 1 << 53  # of the floats that grammars use


class Literals:
    """Spells values and names; `changed` is set when a spelling differs from the literal."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.changed = False

    def text(self, text: str, place: Place) -> str:
        """Return `text` as it is spelled in a JSON string: unchanged or normalized.

        Raises ParameterError if neither can be spelled.
        """
        missing = self._missing(text)
        if missing is None:
            return text
        nearest = self._vocabulary.normalized(text)
        if not nearest or self._missing(nearest):
            raise unspellable_error(text, missing, place)
        self.changed = True
        return nearest

    def value(self, value: Any, place: Place) -> Any:
        """Return a JSON value with every text in it spelled."""
        if isinstance(value, str):
            return self.text(value, place)
        if isinstance(value, list):
            return [self.value(item, inside(place, i)) for i, item in enumerate(value)]
        if isinstance(value, dict):
            return {
                self.text(name, inside(place, name)): self.value(item, inside(place, name))
                for name, item in value.items()
            }
        if isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER:
            raise ParameterError(
                "{path} is {value!r:.80}: {reason}.",
                path=place,
                value=value,
                reason=f"at most {_MAX_EXACT_INTEGER:,} can be followed",
            )
        return value

    def nearest(self, text: str) -> str:
        """Return the spelling of a text that `text` has spelled before."""
        return text if self._missing(text) is None else self._vocabulary.normalized(text)

    def tokens(self, text: str) -> int:
        """Return the fewest tokens that spell `text`."""
        return self._vocabulary.min_tokens(text)

    def most_tokens(self, text: str) -> int:
        """Return the most tokens that spell `text`, as `Vocabulary.most_tokens`."""
        return self._vocabulary.most_tokens(text)

    def missing(self, characters: str) -> str | None:
        """Return the first of `characters` that no token spells."""
        return self._vocabulary.unspellable(characters)

    def _missing(self, text: str) -> str | None:
        control = (c for c in text if c < " " and c not in SHORT_ESCAPES)
        return next(control, None) or self._vocabulary.unspellable(dumps(text))


def dumps(value: Any) -> str:
    """Return JSON as answers write it: without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
