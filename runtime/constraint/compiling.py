"""Compiles grammars; those that take too long or too much memory are rejected."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from issun.runtime.child import ChildDiedError, ChildTimeoutError
from issun.runtime.constraint.child import BYTES, MAX_BYTES, MAX_STATES, STEP_FUEL
from issun.runtime.constraint.matching import first_line
from issun.runtime.constraint.pool import Child, Pool, Table
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.errors import CompilerBusyError, ParameterError

MAX_WAITING = 32  # callers at a time, each in its own thread
JSON, TEXT = "json", "text"  # the two vocabularies
_MAX_OUTCOMES = 512  # outcomes
_MAX_CACHED_BYTES = 256 << 20  # of compiled grammars


def grammar_of(rules: str) -> str:
    """Return the grammar for `rules` in llguidance's Lark dialect."""
    from llguidance import LLMatcher  # noqa: PLC0415

    # Forcing could emit the shared first bytes of two characters, after which no token ends.
    grammar: str = LLMatcher.grammar_from_lark('%llguidance {"no_forcing": true}\n' + rules)
    return grammar


class Compiler:
    """Compiles grammars for one vocabulary; can be used from any thread.

    A grammar is first compiled in a child process with the same vocabulary, which is killed if it
    takes too long. Only then it is compiled here. Outcomes are cached, including rejections.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._reset()

    def _reset(self) -> None:
        """Initialize; also called in a forked process, which has none of its parent's threads."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[bytes, _Outcome] = OrderedDict()  # least recently used first
        self._running: dict[bytes, Future[_Outcome]] = {}
        self._waiting = 0
        pool = self._pool = Pool(partial(_table, self._vocabulary))
        self._finalizer = weakref.finalize(self, pool.close)

    def close(self) -> None:
        """Stop compiling; callers that are waiting get BusyError."""
        self._pool.close()

    def first_satisfiable_in_bytes(self, rules: Sequence[str], name: str) -> int | None:
        """Return the index of the first grammar that any text satisfies, whatever the vocabulary.

        Returns None if there is none. Raises as `first_satisfiable` does.
        """
        return self._checked_outcome(rules, name, BYTES).index

    def first_satisfiable(
        self, rules: Sequence[str], name: str, *, is_json: bool
    ) -> tuple[int, Any] | None:
        """Return the index and the matcher of the first grammar that the vocabulary can satisfy.

        The matcher is in its initial state. Returns None if there is no such grammar. Raises
        ParameterError, which refers to the grammars as `name`, if one is invalid or takes too long
        or too much memory; CompilerBusyError if too many callers wait; BusyError if this is closed.
        """
        outcome = self._checked_outcome(rules, name, JSON if is_json else TEXT)
        return None if outcome.index is None else (outcome.index, outcome.matcher)

    def finds(self, pattern: str, text: str) -> bool:
        """Return whether Python finds `pattern` in `text`; True if it cannot tell.

        The search may never end, so it runs in a child process. Raises as `first_satisfiable`.
        """
        work = partial(_searched, pattern, text)
        return self._outcome(["search", pattern, text], "pattern", work).index != 0

    def _checked_outcome(self, rules: Sequence[str], name: str, table: str) -> _Outcome:
        work = partial(_compiled, self._vocabulary, list(rules), table)
        return self._outcome([table, *rules], name, work)

    def _outcome(self, inputs: list[str], name: str, work: Callable[[Child], _Outcome]) -> _Outcome:
        if self._process != os.getpid():
            self._reset()
        key = hashlib.sha256(json.dumps(inputs).encode()).digest()
        outcome = self._once(key, work)
        if outcome.refusal:
            raise outcome.refusal(name)
        return outcome

    def _once(self, key: bytes, work: Callable[[Child], _Outcome]) -> _Outcome:
        """Return the result of `work`, which is done once for all callers with the same key."""
        with self._lock:
            if key in self._outcomes:
                self._outcomes.move_to_end(key)
                return self._outcomes[key]
            if self._waiting >= MAX_WAITING:
                raise CompilerBusyError(
                    "{limit} schemas or patterns are already waiting to be compiled: try again "
                    "later.",
                    limit=MAX_WAITING,
                )
            if key not in self._running:
                self._running[key] = self._pool.submit(work)
            future = self._running[key]
            self._waiting += 1
        try:
            outcome = future.result()
        finally:
            with self._lock:
                self._waiting -= 1
                if future.done():
                    self._running.pop(key, None)
        with self._lock:
            self._store(key, outcome)
        return outcome

    def _store(self, key: bytes, outcome: _Outcome) -> None:
        self._outcomes[key] = outcome
        held = sum(cached.size for cached in self._outcomes.values())
        while len(self._outcomes) > _MAX_OUTCOMES or (
            held > _MAX_CACHED_BYTES and len(self._outcomes) > 1
        ):
            _, oldest = self._outcomes.popitem(last=False)
            held -= oldest.size


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of some grammars; `refusal` creates the error for a rejection from their name."""

    index: int | None = None
    matcher: Any = None
    size: int = 0  # bytes
    refusal: Callable[[str], ParameterError] | None = None


def _compiled(vocabulary: Vocabulary, rules: list[str], table: str, child: Child) -> _Outcome:
    """Compile grammars in the child first, then the one that it finds satisfiable here."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415

    grammars = [grammar_of(text) for text in rules]
    try:
        found, size = child.try_grammars(table, grammars)
    except ChildTimeoutError as error:
        return _Outcome(refusal=partial(_too_long, error.seconds))
    except ChildDiedError:
        return _Outcome(refusal=_too_large)
    if isinstance(found, str):
        return _Outcome(refusal=partial(_invalid, _reason(found)))
    if found is None or table == BYTES:
        return _Outcome(found)
    tokens = vocabulary.for_json if table == JSON else vocabulary.for_text
    limits = LLParserLimits(max_lexer_states=MAX_STATES, step_lexer_fuel=STEP_FUEL)
    matcher = LLMatcher(tokens, grammars[found], log_level=0, limits=limits)
    matcher.compute_bitmask()  # the matchers of all answers share the result
    return _Outcome(found, matcher, size)


def _searched(pattern: str, text: str, child: Child) -> _Outcome:
    """Search in the child; the outcome's index is 1 if the pattern was found and 0 if not."""
    try:
        found = child.searched(pattern, text)
    except ChildTimeoutError as error:
        return _Outcome(refusal=partial(_too_long, error.seconds))
    except ChildDiedError:
        return _Outcome(refusal=_too_large)
    return _Outcome(None if found is None else int(found))


def _table(vocabulary: Vocabulary, name: str) -> Table:
    """Return a vocabulary in the child's format."""
    tokens, ends, silent = vocabulary.table(is_json=name == JSON)
    return {"tokens": [t.decode("latin-1") for t in tokens], "ends": ends, "silent": silent}


def _too_long(limit: float, name: str) -> ParameterError:
    return ParameterError(
        "{name} takes more than {limit:g} s to compile: simplify it.",
        name=name,
        limit=limit,
    )


def _too_large(name: str) -> ParameterError:
    return ParameterError(
        "{name} takes more than {limit:,} MB of memory to compile: simplify it.",
        name=name,
        limit=MAX_BYTES >> 20,
    )


def _invalid(reason: str, name: str) -> ParameterError:
    return ParameterError("The constraint cannot be used: {reason}", reason=f"{name}: {reason}")


_PLACE = re.compile(  # the position in the grammar, which the user has not written
    r"^at \d+\(\d+\): (failed to compile JSON schema: )?(invalid regex .*?\(in regex\): )?"
)


def _reason(text: str) -> str:
    """Return the reason of an error without the generated grammar."""
    lines = [line.strip() for line in text.splitlines()]
    messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    first_satisfiable = _PLACE.sub("", first_line(text)).partition(":  (")[0]
    return (messages[0] if messages else first_satisfiable)[:300]
