"""Converts regular expressions to the grammar's syntax."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CLASS = r"\[\^?\]?(?:\\.|[^\]\\])*\]"


def terminal(pattern: str, newline: str = "") -> str:
    """Return the grammar terminal of `pattern`: slashes escaped, `newline` replaced by a newline.

    `newline` is the template's spelling of a newline, such as backslash + n. A text never contains
    that spelling itself, so a pattern that has it means a newline.
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
    if newline and "\\\\" in body:  # its pieces might match the spelling character by character
        return f"/{body}/ & ~/(?s:.*){re.escape(newline)}(?s:.*)/"
    return f"/{body}/"


def bounded(pattern: str, most: int) -> str:
    """Search for `pattern` in names, with every open repetition bounded to `most` more.

    Every match is a match of `pattern` too.
    """
    parts = re.compile(rf"{_CLASS}|\\.|\{{(\d+),\}}|[*+]", re.DOTALL)

    def end(found: re.Match[str]) -> str:
        if found[1] is not None:
            return f"{{{found[1]},{int(found[1]) + most}}}"
        return {"*": f"{{0,{most}}}", "+": f"{{1,{most}}}"}.get(found[0], found[0])

    body = parts.sub(end, pattern)
    if "|" in body:
        return body
    begin = "" if body.startswith("^") else f"^(?s:.{{0,{most}}})"
    rest = "" if re.search(r"(?<!\\)(\\\\)*\$$", body) else f"(?s:.{{0,{most}}})$"
    return begin + body + rest


def other_than(words: Iterable[str], most: int) -> str:
    """Return a pattern of all texts but `words`, of up to about `most` characters."""
    return f"^{_other(frozenset(words), most)}$"


def _other(words: frozenset[str], most: int) -> str:
    if not words:
        return f"(?s:.{{0,{most}}})"
    heads = sorted({word[0] for word in words if word})
    options = [] if "" in words else [""]
    outside = "".join(f"\\x{{{ord(head):x}}}" for head in heads)
    options.append((f"[^{outside}]" if heads else "(?s:.)") + f"(?s:.{{0,{most - 1}}})")
    for head in heads:
        rest = frozenset(word[1:] for word in words if word[:1] == head)
        options.append(f"\\x{{{ord(head):x}}}" + _other(rest, max(1, most - 1)))
    return "(?:" + "|".join(options) + ")"
