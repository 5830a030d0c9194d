"""Creates constraints from choices, patterns and schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.budget import round_down, trial_bounds
from issun.runtime.constraint.compiling import Compiler
from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.fitting import Fitter
from issun.runtime.constraint.literals import Literals, dumps
from issun.runtime.constraint.matching import Constraint
from issun.runtime.constraint.patterns import terminal
from issun.runtime.constraint.references import Document, Place
from issun.runtime.constraint.restoring import JsonText, WholeText
from issun.runtime.constraint.sizes import Sizes
from issun.runtime.constraint.strings import Strings
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.errors import ParameterError
from issun.runtime.text.stream import Restorer
from issun.runtime.text.tokenizer import Tokenizer

_MAX_BYTES = 64 << 10  # of a schema, a pattern, or all choices together
_EXTRA_TOKENS = 2  # tokens: a space before the answer, and the end token
_SPARE = 4  # of a budget, one in so many tokens is for characters that take several


class Constraints:
    """Creates constraints for a tokenizer; needs llguidance, which the extra `server` installs.

    `max_tokens` is the default token budget: an answer that could be longer is bounded to fit.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        rows: int,
        ends: Collection[int],
        newline: str = "",
        max_tokens: int,
    ) -> None:
        import llguidance  # noqa: F401, PLC0415

        if not ends:
            raise ParameterError("The model has no end token, which constrained answers need.")
        self.vocabulary = Vocabulary(tokenizer, rows=rows, ends=ends, newline=newline)
        self._max_tokens = max_tokens
        self._compiler = Compiler(self.vocabulary)

    def close(self) -> None:
        """Stop compiling for good; callers that are waiting get BusyError."""
        self._compiler.close()

    def choices(self, texts: Sequence[str], *, max_tokens: int | None = None) -> Constraint:
        """Return a constraint to exactly one of `texts`.

        Raises ParameterError if there are none, or if one is empty, exceeds the token budget, or
        cannot be spelled even in the tokenizer's normalized form.
        """
        if not texts or not all(text.strip(" ") for text in texts):
            raise ParameterError("choices must be a list of non-empty texts.")
        _check_size("".join(texts), "choices")
        max_tokens = max_tokens or self._max_tokens
        longest = 0
        originals: dict[str, str] = {}
        for index, text in enumerate(texts):
            path = f"choices[{index}]"
            spelled = self.vocabulary.spelled(self._restore_newlines(text), path)
            spelled = spelled.lstrip(" ")  # decoding strips it
            least = self.vocabulary.min_tokens(spelled)
            _check_budget(least, max_tokens, path)
            longest = max(longest, least)
            if spelled == text:
                originals[spelled] = text
            else:
                originals.setdefault(spelled, text)
        rule = " | ".join(_quoted(text) for text in originals)
        restored = any(spelled != text for spelled, text in originals.items())
        rules = f"start: {self._start_rule(max_tokens - longest)}answer\nanswer: {rule}\n"
        found = self._compiler.first_satisfiable([rules], "choices", is_json=False)
        if not found:
            raise ParameterError("choices: the model cannot write any of them.")
        restorer = partial(WholeText, originals) if restored else None
        return Constraint(rules, self.vocabulary, found[1], is_json=False, restorer=restorer)

    def finds(self, pattern: str, text: str) -> bool:
        """Return whether `pattern` is found in `text`, in limited time; see `Compiler.finds`."""
        return self._compiler.finds(pattern, text)

    def spelled(self, text: str, path: str) -> str:
        """Return `text` as the model can write it; ParameterError, naming `path`, if it cannot."""
        return self.vocabulary.spelled(self._restore_newlines(text), path)

    def regex(
        self, pattern: str, *, max_tokens: int | None = None, name: str = "regex"
    ) -> Constraint:
        """Return a constraint to text that `pattern` matches as a whole; errors call it `name`.

        Raises ParameterError for an invalid pattern, and if no match can be spelled or fits the
        token budget.
        """
        _check_size(pattern, name)
        max_tokens = max_tokens or self._max_tokens
        parts = ["/([^ ](?s:.*))?/", terminal(pattern, self.vocabulary.newline)]
        alphabet = self.vocabulary.restriction(pattern)
        if alphabet:
            parts.append(f"/{alphabet}/")
        # In the same terminal, so that an empty one is detected.
        begin = self._start_rule(max_tokens - 1)
        # Characters of the pattern itself may have to be written at any cost.
        forced = self.vocabulary.most_tokens(pattern) - len(pattern)
        left = max_tokens - min(forced, max_tokens // 2)
        bounds = trial_bounds(self._characters(left))
        rules = [
            f"start: ALL\nALL: {begin}P\nP: {' & '.join(parts)} & /(?s:.{{0,{bound}}})/"
            for bound in bounds
        ]
        found = self._compiler.first_satisfiable(rules, name, is_json=False)
        if not found:
            raise self.vocabulary.no_match_error(pattern, name)
        index, matcher = found
        spare = self._spare(left, bounds[index])
        constraint = Constraint(rules[index], self.vocabulary, matcher, is_json=False, spare=spare)
        if index:  # its bound in characters is above the token budget
            with Effort(name=name) as effort:
                least = constraint.start().shortest(self.vocabulary, effort)
            _check_budget(least, max_tokens, name)
        return constraint

    def json_schema(
        self,
        schema: dict[str, Any],
        *,
        place: Place = "#",
        max_tokens: int | None = None,
        effort: Effort | None = None,
    ) -> Constraint:
        """Return a constraint to JSON for `schema`, or its part at `place`, in a token budget.

        Raises ParameterError, with the place in the schema, for unsupported keywords and texts that
        cannot be spelled, if the smallest answer does not fit, and if it takes too much `effort`.
        """
        max_tokens = max_tokens or self._max_tokens
        if effort is None:
            with Effort(search=self.finds) as own:
                return self.json_schema(schema, place=place, max_tokens=max_tokens, effort=own)
        try:
            fitted, least, spare, restorer = self._fit_schema(
                _copy_json(schema), place, max_tokens, effort
            )
        except RecursionError as error:
            raise ParameterError("The schema is too large: simplify it.") from error
        rules = (
            f"start: {self._start_rule(max_tokens - least)}answer\nanswer: %json {dumps(fitted)}"
        )
        found = self._compiler.first_satisfiable([rules], "schema", is_json=True)
        if not found:
            raise ParameterError("{path}: no value satisfies the schema.", path=place)
        return Constraint(
            rules, self.vocabulary, found[1], is_json=True, spare=spare, restorer=restorer
        )

    def _fit_schema(
        self, schema: dict[str, Any], place: Place, max_tokens: int, effort: Effort
    ) -> tuple[dict[str, Any], int, int | None, Callable[[], Restorer] | None]:
        """Return a schema that fits the budget, the fewest tokens, the spare ones, the restorer."""
        alternatives = Alternatives(Document(schema), effort)
        literals, strings = Literals(self.vocabulary), Strings(self.vocabulary, self._compiler)
        sizes = Sizes(alternatives, literals, strings)
        fitter = Fitter(sizes, literals, strings)
        places = (place,)
        fitter.explain(places)
        least = int(sizes.min_tokens(places))
        _check_budget(least, max_tokens, "schema" if place == "#" else place)
        budget = self._characters(max_tokens)
        fitted = fitter.schema(places, budget)
        most = min(max(round_down(budget), sizes.min_chars(places)), sizes.max_chars(places))
        spare = self._spare(max_tokens, int(most))
        restorer = partial(JsonText, alternatives, literals, places) if literals.changed else None
        return fitted, least, spare, restorer

    def _characters(self, max_tokens: int) -> int:
        """Return the characters of an answer in a budget of tokens."""
        left = max_tokens - _EXTRA_TOKENS
        return left if self.vocabulary.alphabet is not None else left - left // _SPARE

    def _spare(self, max_tokens: int, characters: int) -> int | None:
        """Return the tokens left by so many characters; None if each takes one at most."""
        if self.vocabulary.alphabet is not None:
            return None
        return max(0, max_tokens - _EXTRA_TOKENS - characters)

    def _start_rule(self, left: int) -> str:
        """Return the start of a grammar: the tokenizer's optional space, if the budget allows."""
        return '" "? ' if left > 0 and self.vocabulary.begins_with_space else ""

    def _restore_newlines(self, text: str) -> str:
        """Replace the template's spelling of newlines by newlines."""
        newline = self.vocabulary.newline
        return text.replace(newline, "\n") if newline else text


def _check_size(given: str, name: str) -> None:
    try:
        size = len(given.encode())
    except UnicodeEncodeError as error:
        raise ParameterError(
            "{name} has half a character (a lone surrogate) at position {position}.",
            name=name,
            position=error.start,
        ) from error
    if size > _MAX_BYTES:
        raise ParameterError(
            "{name} has {size:,} bytes, but at most {limit:,} are allowed.",
            name=name,
            size=size,
            limit=_MAX_BYTES,
        )


def _copy_json(schema: dict[str, Any]) -> Any:
    """Return a copy of `schema`; raises ParameterError if it is not JSON or too large."""
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ParameterError("The schema is not JSON: {reason}", reason=error) from error
    _check_size(text, "schema")
    return json.loads(text)


def _check_budget(least: int, max_tokens: int, name: str) -> None:
    if least > max_tokens:
        raise ParameterError(
            "{name} needs at least {least:,} tokens, but the answer is limited to {limit:,}.",
            name=name,
            least=least,
            limit=max_tokens,
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
