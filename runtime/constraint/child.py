"""The program of a process that tries grammars; it is run as a file and imports nothing of issun.

It reads and writes lines of JSON. {"table": name, "tokens", "ends", "silent"} is a vocabulary, its
tokens in Latin-1, and is answered by {}. {"try": name of a vocabulary, "grammars"} is answered by
{"found", "bytes"}: the place of the first grammar that some text follows, None, or the error of one
that is wrong, and the memory of what was found. {"search": pattern, "text"} is answered by
{"found"}: whether the pattern is found in the text, None where Python cannot tell.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 30  # that the trials of one process may take
BYTES = "bytes"  # the vocabulary whose tokens are single bytes, which needs no line
MOST_STATES = 50_000  # of the lexer of one answer: about 2 kB each
# Of work for one token: 0.15 s. llguidance's own tenth of that is too little for a date after a
# topic of any characters, in a vocabulary of thousands of pieces.
STEP_FUEL = 2_000_000
# Of a grammar that nothing follows, or of which that cannot be told in time.
_NOTHING = "nsatisfiable", "Unable to determine", "checking relevance"


class Table:
    """A vocabulary as llguidance wants it: the bytes of each id. No text is ever encoded."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], eos: int, silent: list[int]) -> None:
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, eos, silent

    def __call__(self, text: bytes) -> list[int]:
        """No ids: llguidance asks for them only where it may force tokens."""
        return []


def main() -> None:
    """Answer lines until there are no more."""
    _end_with_parent()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    from llguidance import LLTokenizer  # noqa: PLC0415

    tables: dict[str, Any] = {BYTES: LLTokenizer("byte")}
    _limit_memory()
    while True:
        asked = json.loads(lines.get())
        if "table" in asked:
            tables[asked["table"]] = _table(asked)
            _limit_memory()
            found: Any = {}
        elif "search" in asked:
            found = {"found": _found(asked["search"], asked["text"])}
        else:
            found = _tried(tables[asked["try"]], asked["grammars"])
        os.write(1, json.dumps(found).encode() + b"\n")


def _read(lines: queue.SimpleQueue[bytes]) -> None:
    """Read what comes; where the pipe is closed the parent is gone, whatever is being tried."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _table(asked: dict[str, Any]) -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

    tokens = [token.encode("latin-1") for token in asked["tokens"]]
    table = Table(tokens, asked["ends"][0], asked["silent"])
    return LLTokenizer(TokenizerWrapper(table), n_vocab=len(tokens), eos_token=asked["ends"])


def _tried(table: Any, grammars: list[str]) -> dict[str, Any]:
    """Compile each, and ask what may come first, as the parent is going to."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415

    before, limits = (
        _memory()[1],
        LLParserLimits(max_lexer_states=MOST_STATES, step_lexer_fuel=STEP_FUEL),
    )
    for place, grammar in enumerate(grammars):
        matcher = LLMatcher(table, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
            if not matcher.is_error():
                return {"found": place, "bytes": max(0, _memory()[1] - before)}
        elif not any(sign in matcher.get_error() for sign in _NOTHING):
            return {"found": matcher.get_error(), "bytes": 0}
    return {"found": None, "bytes": 0}


def _found(pattern: str, text: str) -> bool | None:
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return None


def _end_with_parent() -> None:
    """Let the kernel end this process with the thread that started it (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which goes on or ends
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _limit_memory() -> None:
    """Allow so much beyond what is held now, and no core file when it is passed (Linux)."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = _memory()[0] + MOST_BYTES
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory() -> tuple[int, int]:
    """Address space and memory of this process in bytes; 0 where that is not known."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(pages[0]) * os.sysconf("SC_PAGESIZE"), int(pages[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
