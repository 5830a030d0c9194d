"""Bounds in a few steps, so that answers of similar room share a compiled grammar."""

from __future__ import annotations


def step(room: int) -> int:
    """The largest of 1, 2, 3, 4, 6, 8, 12, 16, 24 … that is at most `room`, and at least 1."""
    power = 1 << (max(room, 1).bit_length() - 1)
    half = power + power // 2
    return half if power > 1 and room >= half else power


def bounds(room: int) -> list[int]:
    """Bounds to try in turn: one that fits `room`, then larger ones, where something needs them."""
    return [step(room) << doubled for doubled in range(12)]


def shares(room: int, needs: list[tuple[float, float]]) -> list[int]:
    """How `room` is shared among parts of which each needs so much and can use so much.

    Each gets what it needs; of the rest, those that can use little get that, the others the same.
    """
    rest = max(0, room - sum(int(least) for least, _ in needs))
    given = [0] * len(needs)
    order = sorted(range(len(needs)), key=lambda i: needs[i][1] - needs[i][0])
    for done, i in enumerate(order):
        least, most = needs[i]
        extra = int(min(most - least, rest // (len(needs) - done)))
        given[i] = int(least) + max(0, extra)
        rest -= max(0, extra)
    return given
