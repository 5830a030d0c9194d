"""What is asked for -> a constraint."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.compiling import compiled, first_possible
from issun.runtime.constraint.fitting import Fitter
from issun.runtime.constraint.literals import Literals, dumps
from issun.runtime.constraint.matching import Constraint
from issun.runtime.constraint.patterns import terminal
from issun.runtime.constraint.references import Document, Place
from issun.runtime.constraint.restoring import JsonText, WholeText
from issun.runtime.constraint.sizes import Sizes
from issun.runtime.constraint.steps import bounds
from issun.runtime.constraint.strings import Strings
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.errors import ParameterError
from issun.runtime.stream import Restorer
from issun.runtime.tokenizer import Tokenizer

_MOST_BYTES = 64 << 10  # of a schema, a pattern, or all choices together
_AROUND = 2  # tokens: a space before the answer, and the end
_KEPT = 64  # compiled grammars


class Constraints:
    """Makes constraints for a tokenizer; needs the extra `server`, for llguidance.

    `room` is how many tokens an answer may have: what has no end of its own gets one that fits.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        rows: int,
        ends: Collection[int],
        newline: str = "",
        room: int,
    ) -> None:
        import llguidance  # noqa: F401, PLC0415

        if not ends:
            raise ParameterError("The model has no end token, which constrained answers need.")
        self.vocabulary = Vocabulary(tokenizer, rows=rows, ends=ends, newline=newline)
        self._room = room
        self._compiled: dict[str, Any] = {}  # by the text of the grammar

    def choices(self, texts: Sequence[str], *, room: int | None = None) -> Constraint:
        """One of `texts`, exactly.

        Raises ParameterError when there are none, or for one that is empty, does not fit the room
        or cannot be spelled: as it is, or as the tokenizer's normalization writes it.
        """
        if not texts or not all(text.strip(" ") for text in texts):
            raise ParameterError("choices must be texts that are not empty.")
        _check_size("".join(texts), "choices")
        room = room or self._room
        longest = 0
        originals: dict[str, str] = {}
        for place, text in enumerate(texts):
            path = f"choices[{place}]"
            spelled = self.vocabulary.spelled(self._with_newlines(text), path)
            spelled = spelled.lstrip(" ")  # which decoding takes away
            least = self.vocabulary.least_tokens(spelled)
            _check_room(least, room, path)
            longest = max(longest, least)
            if spelled == text:
                originals[spelled] = text
            else:
                originals.setdefault(spelled, text)
        rule = " | ".join(_quoted(text) for text in originals)
        restored = any(spelled != text for spelled, text in originals.items())
        rules = f"start: {self._begin(room - longest)}answer\nanswer: {rule}\n"
        first_possible([rules], "choices")
        return self._make(
            rules,
            restorer=partial(WholeText, originals) if restored else None,
        )

    def spelled(self, text: str, path: str) -> str:
        """`text` as the model can write it; raises ParameterError, naming `path`, if it cannot."""
        return self.vocabulary.spelled(self._with_newlines(text), path)

    def regex(self, pattern: str, *, room: int | None = None, name: str = "regex") -> Constraint:
        """Text that `pattern`, which errors call `name`, matches as a whole.

        Raises ParameterError for a bad pattern, and for one of which the vocabulary can spell no
        match, or none that fits the room.
        """
        _check_size(pattern, name)
        room = room or self._room
        parts = ["/([^ ](?s:.*))?/", terminal(pattern, self.vocabulary.newline)]
        alphabet = self.vocabulary.restriction(pattern)
        if alphabet:
            parts.append(f"/{alphabet}/")
        begin = self._begin(room - 1)  # of the same terminal: one that is empty shows at once
        rules = [
            f"start: ALL\nALL: {begin}P\nP: {' & '.join(parts)} & /(?s:.{{0,{bound}}})/"
            for bound in bounds(room - _AROUND)
        ]
        place = first_possible(rules, name)
        if place is None:
            raise self.vocabulary.nothing_spells(pattern, name)
        constraint = self._make(rules[place])
        if place:  # it has more characters than the answer may have tokens
            _check_room(constraint.start().shortest(self.vocabulary), room, name)
        return constraint

    def json_schema(
        self, schema: dict[str, Any], *, place: Place = "#", room: int | None = None
    ) -> Constraint:
        """JSON that follows `schema`, or the part of it at `place`, and ends within the room.

        Raises ParameterError, with the place in the schema, for what cannot be followed or
        spelled, and where the smallest answer does not fit.
        """
        room = room or self._room
        try:
            text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
            _check_size(text, "schema")
            schema = json.loads(text)
            fitted, least, restorer = self._fitted(schema, place, room)
        except RecursionError as error:
            raise ParameterError("The schema is too large: take a simpler one.") from error
        except (TypeError, ValueError) as error:
            raise ParameterError("The schema is no JSON: {reason}", reason=error) from error
        rules = f"start: {self._begin(room - least)}answer\nanswer: %json {dumps(fitted)}"
        first_possible([rules], "schema")
        return self._make(rules, is_json=True, restorer=restorer)

    def _fitted(
        self, schema: dict[str, Any], place: Place, room: int
    ) -> tuple[dict[str, Any], int, Callable[[], Restorer] | None]:
        """A schema whose values fit the room, the tokens that it needs, and what restores text."""
        alternatives = Alternatives(Document(schema))
        literals, strings = Literals(self.vocabulary), Strings(self.vocabulary)
        sizes = Sizes(alternatives, literals, strings)
        fitter = Fitter(sizes, literals, strings)
        where = (place,)
        fitter.explain(where)
        least = int(sizes.least(where))
        _check_room(least, room, "schema")
        fitted = fitter.schema(where, room - _AROUND)
        restorer = partial(JsonText, alternatives, literals, where) if literals.changed else None
        return fitted, least, restorer

    def _begin(self, left: int) -> str:
        """What a grammar begins with: the tokenizer's space, where a token is left for it."""
        return '" "? ' if left > 0 and self.vocabulary.begins_with_space else ""

    def _make(
        self,
        rules: str,
        *,
        is_json: bool = False,
        restorer: Callable[[], Restorer] | None = None,
    ) -> Constraint:
        tokens = self.vocabulary.for_json if is_json else self.vocabulary.for_text
        if rules not in self._compiled:
            while len(self._compiled) >= _KEPT:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[rules] = compiled(rules, tokens)
        return Constraint(rules, self.vocabulary, self._compiled[rules], is_json, restorer)

    def _with_newlines(self, text: str) -> str:
        """A newline for its spelling in the template."""
        newline = self.vocabulary.newline
        return text.replace(newline, "\n") if newline else text


def _check_size(given: str, name: str) -> None:
    try:
        size = len(given.encode())
    except UnicodeEncodeError as error:
        raise ParameterError(
            "{name} has half a character (a lone surrogate) at {place}.",
            name=name,
            place=error.start,
        ) from error
    if size > _MOST_BYTES:
        raise ParameterError(
            "{name} has {size:,} bytes, it must have at most {limit:,}.",
            name=name,
            size=size,
            limit=_MOST_BYTES,
        )


def _check_room(least: int, room: int, name: str) -> None:
    if least > room:
        raise ParameterError(
            "{name} needs {least:,} tokens or more, and the answer may have {room:,}.",
            name=name,
            least=least,
            room=room,
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
