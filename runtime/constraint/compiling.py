"""Grammar text -> a compiled grammar; what takes too long or too much memory is refused."""

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

from issun.runtime.constraint.child import BYTES, MOST_BYTES, MOST_STATES, STEP_FUEL
from issun.runtime.constraint.matching import first_line
from issun.runtime.constraint.pool import (
    Child,
    DiedError,
    Pool,
    Table,
    TooLongError,
)
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.errors import CompilerBusyError, ParameterError

MOST_WAITING = 32  # callers at a time; they may come from as many threads
JSON, TEXT = "json", "text"  # the two vocabularies
_KEPT = 512  # outcomes
_KEPT_BYTES = 256 << 20  # of compiled grammars


def grammar_of(rules: str) -> str:
    """The grammar whose rules in llguidance's Lark dialect are `rules`."""
    from llguidance import LLMatcher  # noqa: PLC0415

    # Bytes that two characters share must not be forced: no token ends between them.
    grammar: str = LLMatcher.grammar_from_lark('%llguidance {"no_forcing": true}\n' + rules)
    return grammar


class Compiler:
    """Compiles grammars for one vocabulary; may be used from any thread.

    A grammar is tried in a child process first, with the same vocabulary, so that what would take
    too long is ended. What passed is compiled here. Outcomes are kept, also of what is refused.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._begin()

    def _begin(self) -> None:
        """Begin with nothing; a process that was forked has none of the threads of its parent."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[bytes, _Outcome] = OrderedDict()  # the latest used last
        self._running: dict[bytes, Future[_Outcome]] = {}
        self._waiting = 0
        pool = self._pool = Pool(partial(_table, self._vocabulary))
        self._finalizer = weakref.finalize(self, pool.close)

    def close(self) -> None:
        """End what is compiled now; whoever waits gets BusyError."""
        self._pool.close()

    def first_possible(self, rules: Sequence[str], name: str) -> int | None:
        """The place of the first of some grammars that any text follows, of whatever tokens.

        None when there is none. Raises as `first` does.
        """
        return self._passed(rules, name, BYTES).place

    def first(self, rules: Sequence[str], name: str, *, is_json: bool) -> tuple[int, Any] | None:
        """The place of the first of some grammars that any text follows, and its matcher.

        The matcher has read nothing. None when there is no such grammar. Raises ParameterError,
        which calls them `name`, for one that is wrong, takes too long or too much memory,
        CompilerBusyError when too many wait, and BusyError when the compiler is closed.
        """
        outcome = self._passed(rules, name, JSON if is_json else TEXT)
        return None if outcome.place is None else (outcome.place, outcome.matcher)

    def finds(self, pattern: str, text: str) -> bool:
        """Whether `pattern` is found in `text`, as Python reads it; True where it cannot tell.

        Python may search for ever, so a child process does. Raises as `first` does.
        """
        work = partial(_searched, pattern, text)
        return self._outcome(["search", pattern, text], "pattern", work).place != 0

    def _passed(self, rules: Sequence[str], name: str, table: str) -> _Outcome:
        work = partial(_compiled, self._vocabulary, list(rules), table)
        return self._outcome([table, *rules], name, work)

    def _outcome(self, of: list[str], name: str, work: Callable[[Child], _Outcome]) -> _Outcome:
        if self._process != os.getpid():
            self._begin()
        key = hashlib.sha256(json.dumps(of).encode()).digest()
        outcome = self._once(key, work)
        if outcome.refusal:
            raise outcome.refusal(name)
        return outcome

    def _once(self, key: bytes, work: Callable[[Child], _Outcome]) -> _Outcome:
        """What `work` gives; it is done once, whoever asks for it meanwhile and afterwards."""
        with self._lock:
            if key in self._outcomes:
                self._outcomes.move_to_end(key)
                return self._outcomes[key]
            if self._waiting >= MOST_WAITING:
                raise CompilerBusyError(
                    "{limit} schemas or patterns wait to be compiled already: try again later.",
                    limit=MOST_WAITING,
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
            self._keep(key, outcome)
        return outcome

    def _keep(self, key: bytes, outcome: _Outcome) -> None:
        self._outcomes[key] = outcome
        held = sum(kept.size for kept in self._outcomes.values())
        while len(self._outcomes) > _KEPT or (held > _KEPT_BYTES and len(self._outcomes) > 1):
            _, oldest = self._outcomes.popitem(last=False)
            held -= oldest.size


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of some grammars; the error of what is refused is made with their name."""

    place: int | None = None
    matcher: Any = None
    size: int = 0  # bytes
    refusal: Callable[[str], ParameterError] | None = None


def _compiled(vocabulary: Vocabulary, rules: list[str], table: str, child: Child) -> _Outcome:
    """Try some grammars in the child, and compile the one that it finds."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415

    grammars = [grammar_of(text) for text in rules]
    try:
        found, size = child.tried(table, grammars)
    except TooLongError as error:
        return _Outcome(refusal=partial(_too_long, error.seconds))
    except DiedError:
        return _Outcome(refusal=_too_large)
    if isinstance(found, str):
        return _Outcome(refusal=partial(_wrong, _reason(found)))
    if found is None or table == BYTES:
        return _Outcome(found)
    tokens = vocabulary.for_json if table == JSON else vocabulary.for_text
    limits = LLParserLimits(max_lexer_states=MOST_STATES, step_lexer_fuel=STEP_FUEL)
    matcher = LLMatcher(tokens, grammars[found], log_level=0, limits=limits)
    matcher.compute_bitmask()  # which the matchers of all answers then have already
    return _Outcome(found, matcher, size)


def _searched(pattern: str, text: str, child: Child) -> _Outcome:
    """Search in the child: the place is 1 where something was found, and 0 where nothing was."""
    try:
        found = child.searched(pattern, text)
    except TooLongError as error:
        return _Outcome(refusal=partial(_too_long, error.seconds))
    except DiedError:
        return _Outcome(refusal=_too_large)
    return _Outcome(None if found is None else int(found))


def _table(vocabulary: Vocabulary, name: str) -> Table:
    """A vocabulary as the child wants it."""
    tokens, ends, silent = vocabulary.table(is_json=name == JSON)
    return {"tokens": [t.decode("latin-1") for t in tokens], "ends": ends, "silent": silent}


def _too_long(limit: float, name: str) -> ParameterError:
    return ParameterError(
        "{name} takes more than {limit:g} s to compile: take a simpler one.",
        name=name,
        limit=limit,
    )


def _too_large(name: str) -> ParameterError:
    return ParameterError(
        "{name} takes more than {limit:,} MB of memory to compile: take a simpler one.",
        name=name,
        limit=MOST_BYTES >> 20,
    )


def _wrong(reason: str, name: str) -> ParameterError:
    return ParameterError("The constraint cannot be used: {reason}", reason=f"{name}: {reason}")


_PLACE = re.compile(  # of an error in the grammar, which nobody has seen
    r"^at \d+\(\d+\): (failed to compile JSON schema: )?(invalid regex .*?\(in regex\): )?"
)


def _reason(text: str) -> str:
    """What is wrong, without the grammar that was made of what was given."""
    lines = [line.strip() for line in text.splitlines()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    first = _PLACE.sub("", first_line(text)).partition(":  (")[0]
    return (told[0] if told else first)[:300]
