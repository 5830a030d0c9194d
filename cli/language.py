"""Messages in the reader's language: Japanese where the locale is Japanese, else English."""

from __future__ import annotations

import locale
import os
import sys
from functools import cache

from issun.runtime.errors import IssunError


@cache
def is_japanese() -> bool:
    """True where messages are to be Japanese: `ISSUN_LANG`, else the locale."""
    for name in ("ISSUN_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value.lower().startswith("ja")
    return (locale.getlocale()[0] or "").lower().startswith("ja")


def tr(template: str) -> str:
    """The template in the reader's language; English where there is no translation."""
    if not is_japanese():
        return template
    from issun.cli.japanese import JAPANESE  # noqa: PLC0415

    return JAPANESE.get(template, template)


def describe(error: IssunError) -> str:
    """The error's one line in the reader's language."""
    return " ".join(tr(error.template).format(**error.values).split())


def note(template: str, **values: object) -> None:
    """Tell the reader something, on stderr; the answer alone goes to stdout."""
    print(printable(tr(template).format(**values)), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` without control characters: what a model or a file says must not steer a terminal."""
    return "".join(c for c in text if c in "\n\t" or not _is_control(c))


def printable_json(text: str) -> str:
    """JSON with control characters escaped, for the same reason."""
    return "".join(f"\\u{ord(c):04x}" if c != "\n" and _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    # C0 and C1 controls, and the marks that reorder a line.
    code = ord(character)
    return (
        code < 0x20 or 0x7F <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    )
