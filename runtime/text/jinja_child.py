"""The program of a child process that renders chat templates, as transformers 4.57 does.

It runs as a file and imports no issun. It first writes a line {}. Then it reads lines of JSON,
{"source", "values", "seconds", "most"}, and answers each with {"text"} or {"error"}: the rendered
text, of at most `most` characters, or the reason why there is none. A process that takes much
longer than `seconds` ends, even without a parent that could kill it.

Source: `_compile_jinja_template` in transformers.utils.chat_template_utils.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_BYTES = 512 << 20  # for all texts of one process (Linux)


class GenerationTag(Extension):
    """Renders what `{% generation %}` encloses; transformers finds the answers of a chat by it."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block as a call, since its variables are local in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    _limit_memory()
    _write({})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        with _ends_after(request["seconds"] + 1):
            answer = _answer(request["source"], request["values"], request["most"])
        _write(answer)


def _answer(source: str, values: dict[str, Any], most: int) -> dict[str, str]:
    try:
        pieces, size = [], 0
        for piece in _compiled(source).generate(**values):
            size += len(piece)
            if size > most:
                return {"error": f"it renders more than {most:,} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except TemplateSyntaxError as error:
        return {"error": f"{error.message} (line {error.lineno})"}
    except TemplateError as error:
        return {"error": error.message or type(error).__name__}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


@lru_cache(maxsize=1)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(format: str) -> str:  # noqa: A002 - as in transformers
    return datetime.now().strftime(format)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _write(answer: dict[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def _ends_after(seconds: float) -> Iterator[None]:
    """Let the kernel end this process, unless the block takes less (not on Windows)."""
    if sys.platform == "win32":
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory() -> None:
    """Limit further memory, and write no core file when the limit is exceeded (Linux)."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        wanted = pages * os.sysconf("SC_PAGESIZE") + MAX_BYTES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
