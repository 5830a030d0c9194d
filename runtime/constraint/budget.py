"""Rounds budgets to a few steps, so that similar ones share a compiled grammar."""

from __future__ import annotations


def round_down(budget: int) -> int:
    """Return the largest of 1, 2, 3, 4, 6, 8, 12, 16, 24 … that is at most `budget`."""
    power = 1 << (max(budget, 1).bit_length() - 1)
    half = power + power // 2
    return half if power > 1 and budget >= half else power


def trial_bounds(budget: int) -> list[int]:
    """Return bounds to try in turn: one within `budget`, then larger ones for longer minimums."""
    return [round_down(budget) << doubled for doubled in range(12)]


def divide(budget: int, needs: list[tuple[float, float]]) -> list[int]:
    """Divide `budget` among parts, each with the size it needs and the size it can use.

    Every part gets what it needs. The rest is divided equally, up to what each part can use.
    """
    rest = max(0, budget - sum(int(least) for least, _ in needs))
    given = [0] * len(needs)
    order = sorted(range(len(needs)), key=lambda i: needs[i][1] - needs[i][0])
    for done, i in enumerate(order):
        least, most = needs[i]
        extra = int(min(most - least, rest // (len(needs) - done)))
        given[i] = int(least) + max(0, extra)
        rest -= max(0, extra)
    return given
