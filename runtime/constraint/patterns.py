"""Regular expressions as grammars write them."""

from __future__ import annotations

import re

_CLASS = r"\[\^?\]?(?:\\.|[^\]\\])*\]"


def terminal(pattern: str, newline: str = "") -> str:
    """The terminal of a grammar for `pattern`: its slashes escaped, `newline` read as one.

    `newline` is how the template spells a newline, say backslash + n. A text never has these
    characters side by side, so a pattern that wants them wants a newline.
    """
    spelling = re.escape(re.escape(newline)) if newline else r"(?!)"
    parts = re.compile(rf"(?P<class>{_CLASS})|(?P<newline>{spelling})|\\.|/", re.DOTALL)

    def rewrite(found: re.Match[str]) -> str:
        if found["class"]:
            return re.sub(r"(\\.)|/", lambda f: f[1] or r"\/", found["class"], flags=re.DOTALL)
        if found["newline"]:
            return r"\n"
        return r"\/" if found[0] == "/" else found[0]

    body = parts.sub(rewrite, pattern)
    if newline and "\\\\" in body:  # it may want the characters one after the other
        return f"/{body}/ & ~/(?s:.*){re.escape(newline)}(?s:.*)/"
    return f"/{body}/"
