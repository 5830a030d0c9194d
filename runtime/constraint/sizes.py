"""How large values are, in tokens."""

from __future__ import annotations


def step(room: int) -> int:
    """The largest of 1, 2, 3, 4, 6, 8, 12, 16, 24 … that is at most `room`, and at least 1.

    Bounds are taken in these steps, so that answers of similar room share a compiled grammar.
    """
    power = 1 << (max(room, 1).bit_length() - 1)
    half = power + power // 2
    return half if power > 1 and room >= half else power


def bounds(room: int) -> list[int]:
    """Bounds to try in turn: one that fits `room`, then larger ones, where something needs them."""
    return [step(room) << doubled for doubled in range(12)]
