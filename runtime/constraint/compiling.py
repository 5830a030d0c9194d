"""Grammar text -> a compiled grammar; what takes too long to compile is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from issun.runtime.constraint.matching import first_line
from issun.runtime.errors import ParameterError

_MOST_SECONDS = 5.0  # to compile one
# Of work for one token: 0.15 s. llguidance's own tenth of that is too little for a date behind a
# topic of any characters, in a vocabulary of thousands of pieces.
_STEP_FUEL = 2_000_000

# Tries the grammars in their order and prints the place of the first that some text follows: by
# compiling it, and by asking what may come first. Prints the error of one that is wrong. One of
# which that cannot be told in time counts as one that nothing follows.
_TRY = """
import json, sys
from llguidance import LLMatcher, LLTokenizer
tokens = LLTokenizer("byte")
found = None
signs = "nsatisfiable", "Unable to determine", "checking relevance"
for place, grammar in enumerate(json.load(sys.stdin)):
    matcher = LLMatcher(tokens, grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
        if not matcher.is_error():
            found = place
            break
    elif not any(sign in matcher.get_error() for sign in signs):
        found = matcher.get_error()
        break
print(json.dumps(found))
"""


def grammar_of(rules: str) -> str:
    """The grammar whose rules in llguidance's Lark dialect are `rules`."""
    from llguidance import LLMatcher  # noqa: PLC0415

    # Bytes that two characters share must not be forced: no token ends between them.
    grammar: str = LLMatcher.grammar_from_lark('%llguidance {"no_forcing": true}\n' + rules)
    return grammar


def first_possible(rules: Sequence[str], name: str) -> int | None:
    """The place of the first of some grammars that any text follows; None when there is none.

    Raises ParameterError, which calls them `name`, for one that is wrong or takes too long.
    """
    found = _tried(tuple(rules))
    if found == _TOO_LONG:
        raise ParameterError(
            "{name} takes more than {limit:g} s to compile: take a simpler one.",
            name=name,
            limit=_MOST_SECONDS,
        )
    if isinstance(found, str):
        raise ParameterError(
            "The constraint cannot be used: {reason}", reason=f"{name}: {_reason(found)}"
        )
    return found


def compiled(rules: str, tokens: Any) -> Any:
    """A matcher that has read nothing; `first_possible` has tried the grammar before."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415

    limits = LLParserLimits(step_lexer_fuel=_STEP_FUEL)
    matcher = LLMatcher(tokens, grammar_of(rules), log_level=0, limits=limits)
    if matcher.is_error():
        reason = _reason(matcher.get_error())
        raise ParameterError("The constraint cannot be used: {reason}", reason=reason)
    return matcher


_TOO_LONG = "too long"
_PLACE = re.compile(  # of an error in the grammar, which nobody has seen
    r"^at \d+\(\d+\): (failed to compile JSON schema: )?(invalid regex .*?\(in regex\): )?"
)


@lru_cache(maxsize=512)
def _tried(rules: tuple[str, ...]) -> int | str | None:
    """Try them in a process that can be ended: some small grammars would take hours."""
    grammars = json.dumps([grammar_of(text) for text in rules])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRY],
            input=grammars.encode(),
            capture_output=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _TOO_LONG
    try:
        found: int | str | None = json.loads(done.stdout)
    except ValueError:
        return "the compiler ended without an answer"
    return found


def _reason(text: str) -> str:
    """What is wrong, without the grammar that was made of what was given."""
    lines = [line.strip() for line in text.splitlines()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    first = _PLACE.sub("", first_line(text)).partition(":  (")[0]
    return (told[0] if told else first)[:300]
