"""Parses and formats amounts of memory."""

from __future__ import annotations

import re

from issun.runtime.errors import ParameterError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MOST = 2**60  # bytes


def parse_size(text: str, *, least: int = 1) -> int:
    """Bytes of `2GB`, `1.5GiB`, `800MB` or a plain number; raises ParameterError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?b|)\s*", text, re.IGNORECASE)
    size = float(found[1]) * _UNITS[found[2].upper()] if found else -1
    if not least <= size <= _MOST:
        raise ParameterError("{value!r} is not an amount of memory: write it like 2GB.", value=text)
    return round(size)


def gigabytes(size: float) -> str:
    """`1.23 GB`, or megabytes below 1 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
