"""Writes the badges of README, which need no other site: `python docs/making/badges.py`."""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LETTER, _PAD = 6.2, 8  # width of a letter of 11 px, and space beside a text


def badges() -> dict[Path, str]:
    """Each badge's file, and what it should contain."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = project["requires-python"].removeprefix(">=") + " or later"
    texts = {
        "python": ("Python", python, "#1f5f8b"),
        "licence": ("licence", project["license"], "#2f6f44"),
        "offline": ("network", "not needed", "#7a4a12"),
    }
    folder = ROOT / "docs" / "images"
    return {folder / f"badge-{name}.svg": _draw(*text) for name, text in texts.items()}


def _draw(name: str, value: str, color: str) -> str:
    left, right = (len(text) * _LETTER + 2 * _PAD for text in (name, value))
    title = escape(f"{name}: {value}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.0f}" height="20" '
        f'role="img" aria-label="{title}"><title>{title}</title>\n'
        f'<clipPath id="c"><rect width="{left + right:.0f}" height="20" rx="4"/></clipPath>\n'
        f'<g clip-path="url(#c)"><rect width="{left:.0f}" height="20" fill="#444"/>'
        f'<rect x="{left:.0f}" width="{right:.0f}" height="20" fill="{color}"/></g>\n'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{_PAD}" y="14" textLength="{left - 2 * _PAD:.0f}">{escape(name)}</text>'
        f'<text x="{left + _PAD:.0f}" y="14" textLength="{right - 2 * _PAD:.0f}">{escape(value)}'
        "</text></g>\n</svg>\n"
    )


if __name__ == "__main__":
    for path, text in badges().items():
        path.write_text(text, encoding="utf-8")
