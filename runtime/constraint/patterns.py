"""Regular expressions as grammars write them."""

from __future__ import annotations

import re
from collections.abc import Iterable

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


def bounded(pattern: str, most: int) -> str:
    """`pattern`, searched for in names, with every open repetition ended after `most` more.

    What it matches is matched by `pattern` too.
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
    """A pattern of all texts but `words` that have up to `most` characters, some a few more."""
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
