"""One message of a conversation and its answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One message and its answer."""

    message: str
    reply: str
