"""Messages in the reader's language, from the gettext catalogues in `locale`."""

from __future__ import annotations

import gettext
import locale
import os
import re
import shutil
import string
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from issun.cli.wrapping import columns, wrap

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
    """The translation of a template; the English template if there is none."""
    return _catalogue(language()).gettext(template)


def mark(template: str) -> str:
    """Mark a template for extraction; it is translated by `tr` where it is shown."""
    return template


def recognize(text: str, templates: Iterable[str]) -> str:
    """Translate an English text that matches one of the templates; return other texts unchanged.

    For texts of libraries and the system, which are English in every language. A field `message` is
    translated in the same way.
    """
    for template in templates:
        if found := _pattern(template).fullmatch(text):
            values = found.groupdict()
            if "message" in values:
                values["message"] = recognize(values["message"], templates)
            return tr(template).format(**values)
    return text


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = [
        re.escape(text) + (f"(?P<{name}>.+)" if name else "")
        for text, name, _, _ in string.Formatter().parse(template)
    ]
    return re.compile("".join(parts), re.DOTALL)


def note(template: str, **values: object) -> None:
    """Print a translated message on stderr; stdout is for the answer only."""
    show(tr(template).format(**values))


def show(text: str) -> None:
    """Print lines on stderr, without control characters; a terminal does not break their words."""
    lines = printable(text).split("\n")
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = [
            part
            for line in lines
            for part in (wrap(line, width) if columns(line) > width else [line])
        ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` without control characters, so that no model or file can control the terminal."""
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
