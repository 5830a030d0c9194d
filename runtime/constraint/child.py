"""The program of a child process that compiles grammars. It runs as a file and imports no issun.

It reads and writes lines of JSON. {"table": name, "tokens", "ends", "silent"} defines a vocabulary,
with its tokens in Latin-1; the reply is {}. {"try": name of a vocabulary, "grammars"} is answered
by {"found", "bytes"}: the index of the first satisfiable grammar, None, or the error message of an
invalid one; and the memory that the compiled grammar takes. {"search": pattern, "text"} is answered
by {"found"}: whether the pattern is found in the text, None if Python cannot tell.
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

MAX_BYTES = 1 << 30  # for all trials of one process
BYTES = "bytes"  # the predefined vocabulary whose tokens are single bytes
MAX_STATES = 50_000  # of the lexer per answer: about 2 kB each
# Work per token: 0.15 s. llguidance's default of a tenth is too little for a date after a topic of
# arbitrary characters, in a vocabulary of thousands of pieces.
STEP_FUEL = 2_000_000
# Messages for a grammar that is unsatisfiable, or that cannot be shown to be satisfiable in time.
_UNSATISFIABLE = "nsatisfiable", "Unable to determine", "checking relevance"


class Table:
    """A vocabulary in llguidance's format: the bytes of each id. No text is ever encoded."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], eos: int, silent: list[int]) -> None:
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, eos, silent

    def __call__(self, text: bytes) -> list[int]:
        """Return no ids: llguidance only needs them where it may force tokens."""
        return []


def main() -> None:
    """Answer requests until the input ends."""
    _end_with_parent()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    from llguidance import LLTokenizer  # noqa: PLC0415

    tables: dict[str, Any] = {BYTES: LLTokenizer("byte")}
    _limit_memory()
    while True:
        request = json.loads(lines.get())
        if "table" in request:
            tables[request["table"]] = _table(request)
            _limit_memory()
            found: Any = {}
        elif "search" in request:
            found = {"found": _found(request["search"], request["text"])}
        else:
            found = _try_grammars(tables[request["try"]], request["grammars"])
        os.write(1, json.dumps(found).encode() + b"\n")


def _read(lines: queue.SimpleQueue[bytes]) -> None:
    """Read requests; when the pipe closes, the parent has ended, so exit even during a trial."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _table(request: dict[str, Any]) -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

    tokens = [token.encode("latin-1") for token in request["tokens"]]
    table = Table(tokens, request["ends"][0], request["silent"])
    return LLTokenizer(TokenizerWrapper(table), n_vocab=len(tokens), eos_token=request["ends"])


def _try_grammars(table: Any, grammars: list[str]) -> dict[str, Any]:
    """Compile each grammar and compute its first token mask, as the parent will."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415

    before, limits = (
        _memory()[1],
        LLParserLimits(max_lexer_states=MAX_STATES, step_lexer_fuel=STEP_FUEL),
    )
    for index, grammar in enumerate(grammars):
        matcher = LLMatcher(table, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
            if not matcher.is_error():
                return {"found": index, "bytes": max(0, _memory()[1] - before)}
        elif not any(sign in matcher.get_error() for sign in _UNSATISFIABLE):
            return {"found": matcher.get_error(), "bytes": 0}
    return {"found": None, "bytes": 0}


def _found(pattern: str, text: str) -> bool | None:
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return None


def _end_with_parent() -> None:
    """Make the kernel kill this process when the parent's thread that started it ends (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _limit_memory() -> None:
    """Limit further memory, and write no core file when the limit is exceeded (Linux)."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = _memory()[0] + MAX_BYTES
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory() -> tuple[int, int]:
    """Return the address space and resident memory in bytes; 0 if unknown."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(pages[0]) * os.sysconf("SC_PAGESIZE"), int(pages[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
