"""The README's examples, so that tests run them exactly as written."""

from __future__ import annotations

import re
from pathlib import Path

_README = Path(__file__).parent.parent / "README.md"
_ADDRESS = "http://127.0.0.1:8000"


def example(start: str, *, address: str = _ADDRESS) -> str:
    """Return the only code block that begins with `start`, with the server's address inserted."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", _README.read_text(encoding="utf-8"), re.M | re.S)
    (found,) = [block for block in blocks if block.startswith(start)]
    return str(found).replace(_ADDRESS, address)
