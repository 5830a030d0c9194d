"""Messages in the reader's language, from the catalogues in `locale`; English without one."""

from __future__ import annotations

import gettext
import locale
import os
import sys
from functools import cache
from pathlib import Path

from issun.runtime.errors import IssunError

CATALOGUES = Path(__file__).parent / "locale"


def language() -> str:
    """The reader's language as two letters: `ISSUN_LANG`, else the locale."""
    for name in ("ISSUN_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value[:2].lower()
    return (locale.getlocale()[0] or "")[:2].lower()


@cache
def _catalogue(code: str) -> gettext.NullTranslations:
    return gettext.translation("issun", CATALOGUES, languages=[code], fallback=True)


def tr(template: str) -> str:
    """The template in the reader's language; English where there is no translation."""
    return _catalogue(language()).gettext(template)


def mark(template: str) -> str:
    """Mark a template for the catalogues; `tr` translates it where it is shown."""
    return template


def describe(error: IssunError) -> str:
    """The error's one line in the reader's language."""
    return " ".join(tr(error.template).format(**error.values).split())


def note(template: str, **values: object) -> None:
    """Tell the reader something, on stderr; the answer alone goes to stdout."""
    show(tr(template).format(**values))


def show(text: str) -> None:
    """Print a line on stderr, without control characters."""
    print(printable(text), file=sys.stderr, flush=True)


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
