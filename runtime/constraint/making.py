"""What is asked for -> a constraint."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.compiling import Compiler
from issun.runtime.constraint.effort import Effort
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
        self._compiler = Compiler(self.vocabulary)

    def close(self) -> None:
        """End what is compiled now, for good; whoever waits gets BusyError."""
        self._compiler.close()

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
        found = self._compiler.first([rules], "choices", is_json=False)
        if not found:
            raise ParameterError("choices: nothing can be written.")
        restorer = partial(WholeText, originals) if restored else None
        return Constraint(rules, self.vocabulary, found[1], is_json=False, restorer=restorer)

    def finds(self, pattern: str, text: str) -> bool:
        """Whether `pattern` is found in `text`, in limited time; see `Compiler.finds`."""
        return self._compiler.finds(pattern, text)

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
        found = self._compiler.first(rules, name, is_json=False)
        if not found:
            raise self.vocabulary.nothing_spells(pattern, name)
        place, matcher = found
        constraint = Constraint(rules[place], self.vocabulary, matcher, is_json=False)
        if place:  # it has more characters than the answer may have tokens
            with Effort(name=name) as effort:
                least = constraint.start().shortest(self.vocabulary, effort)
            _check_room(least, room, name)
        return constraint

    def json_schema(
        self,
        schema: dict[str, Any],
        *,
        place: Place = "#",
        room: int | None = None,
        effort: Effort | None = None,
    ) -> Constraint:
        """JSON that follows `schema`, or the part of it at `place`, and ends within the room.

        Raises ParameterError, with the place in the schema, for what cannot be followed or
        spelled, where the smallest answer does not fit, and for what takes too much `effort`.
        """
        room = room or self._room
        if effort is None:
            with Effort(search=self.finds) as own:
                return self.json_schema(schema, place=place, room=room, effort=own)
        try:
            fitted, least, restorer = self._fitted(_own_json(schema), place, room, effort)
        except RecursionError as error:
            raise ParameterError("The schema is too large: take a simpler one.") from error
        rules = f"start: {self._begin(room - least)}answer\nanswer: %json {dumps(fitted)}"
        found = self._compiler.first([rules], "schema", is_json=True)
        if not found:
            raise ParameterError("{path}: no value can follow the schema.", path=place)
        return Constraint(rules, self.vocabulary, found[1], is_json=True, restorer=restorer)

    def _fitted(
        self, schema: dict[str, Any], place: Place, room: int, effort: Effort
    ) -> tuple[dict[str, Any], int, Callable[[], Restorer] | None]:
        """A schema whose values fit the room, the tokens that it needs, and what restores text."""
        alternatives = Alternatives(Document(schema), effort)
        literals, strings = Literals(self.vocabulary), Strings(self.vocabulary, self._compiler)
        sizes = Sizes(alternatives, literals, strings)
        fitter = Fitter(sizes, literals, strings)
        where = (place,)
        fitter.explain(where)
        least = int(sizes.least(where))
        _check_room(least, room, "schema" if place == "#" else place)
        fitted = fitter.schema(where, room - _AROUND)
        restorer = partial(JsonText, alternatives, literals, where) if literals.changed else None
        return fitted, least, restorer

    def _begin(self, left: int) -> str:
        """What a grammar begins with: the tokenizer's space, where a token is left for it."""
        return '" "? ' if left > 0 and self.vocabulary.begins_with_space else ""

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


def _own_json(schema: dict[str, Any]) -> Any:
    """A copy of `schema`; raises ParameterError for what is no JSON or too large."""
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ParameterError("The schema is no JSON: {reason}", reason=error) from error
    _check_size(text, "schema")
    return json.loads(text)


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
