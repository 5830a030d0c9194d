"""Finds what the pages of a built site would load from elsewhere: `python -m … FOLDER`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# Tags that load what they name when a page is opened; of links it depends on the kind.
_LOADING = {"audio", "embed", "iframe", "img", "object", "script", "source", "track", "video"}
_LINKS = {"icon", "manifest", "modulepreload", "prefetch", "preconnect", "preload", "stylesheet"}
_ATTRIBUTES = ("src", "srcset", "href", "data", "poster")
_OUTSIDE = re.compile(r"\s*(?:https?:|wss?:)?//", re.IGNORECASE)
_IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s;]*)""", re.IGNORECASE)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found += _IN_CSS.findall(given.get("style", ""))
        if tag in _LOADING or (tag == "link" and _LINKS & set(given.get("rel", "").split())):
            values = (given.get(name, "") for name in _ATTRIBUTES)
            self.found += [value for value in values if _OUTSIDE.match(value)]


def outside_resources(text: str, suffix: str) -> list[str]:
    """The addresses on other hosts that a page (`.html`) or a style sheet (`.css`) would load."""
    if suffix == ".css":
        return _IN_CSS.findall(text)
    page = _Page()
    page.feed(text)
    inline = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    return page.found + [found for style in inline for found in _IN_CSS.findall(style)]


def check(folder: Path) -> Iterator[str]:
    """A line for each address that a page or style sheet below `folder` would load."""
    for path in sorted([*folder.rglob("*.html"), *folder.rglob("*.css")]):
        for address in outside_resources(path.read_text(encoding="utf-8"), path.suffix):
            yield f"{path.relative_to(folder)} would load {address}"


def main() -> None:
    """Check a folder; exit code 1 where something is found or there is no page."""
    folder = Path(sys.argv[1])
    if not (folder / "index.html").is_file():
        sys.exit(f"There is no site in {folder}.")
    if found := list(check(folder)):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
