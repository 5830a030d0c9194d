"""The literals of a schema: how the vocabulary spells them."""

from __future__ import annotations

import json
from typing import Any

from issun.runtime.constraint.references import Place, inside
from issun.runtime.constraint.vocabulary import SHORT_ESCAPES, Vocabulary, cannot_spell
from issun.runtime.errors import ParameterError

_EXACT = 1 << 53  # beyond this a float is not every whole number, and grammars hold floats


class Literals:
    """Spells values and names; `changed` says whether one is spelled otherwise than it is."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.changed = False

    def text(self, text: str, place: Place) -> str:
        """`text` as a JSON string spells it: itself, or its normal form.

        Raises ParameterError where neither can be spelled.
        """
        missing = self._missing(text)
        if missing is None:
            return text
        normal = self._vocabulary.normalized(text)
        if not normal or self._missing(normal):
            raise cannot_spell(text, missing, place)
        self.changed = True
        return normal

    def value(self, value: Any, place: Place) -> Any:
        """A JSON value with every text in it spelled."""
        if isinstance(value, str):
            return self.text(value, place)
        if isinstance(value, list):
            return [self.value(item, inside(place, i)) for i, item in enumerate(value)]
        if isinstance(value, dict):
            return {
                self.text(name, inside(place, name)): self.value(item, inside(place, name))
                for name, item in value.items()
            }
        if isinstance(value, int) and abs(value) > _EXACT:
            raise ParameterError(
                "{path} is {value!r:.80}: {reason}.",
                path=place,
                value=value,
                reason=f"at most {_EXACT:,} can be followed",
            )
        return value

    def normal(self, text: str) -> str:
        """As `text`, for one that was spelled before."""
        return text if self._missing(text) is None else self._vocabulary.normalized(text)

    def tokens(self, text: str) -> int:
        """The fewest tokens that spell `text`."""
        return self._vocabulary.least_tokens(text)

    def missing(self, characters: str) -> str | None:
        """The first of `characters` that no token spells."""
        return self._vocabulary.unspellable(characters)

    def _missing(self, text: str) -> str | None:
        control = (c for c in text if c < " " and c not in SHORT_ESCAPES)
        return next(control, None) or self._vocabulary.unspellable(dumps(text))


def dumps(value: Any) -> str:
    """JSON as answers have it: without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
