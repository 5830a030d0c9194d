"""Mixed precision: the order in which linear layers get more precision than 4 bits.

Each linear layer has a few precisions that are worth their cost, the convex hull of cost and loss.
All begin in the cheapest, and the step that saves most loss for its cost comes first. So the
mixtures form a ladder, whose rungs are measured (`frontier.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from issun.export.kinds import BLOCKS, KINDS, Kind
from issun.export.sensitivity import Sensitivities

Mixture = dict[str, Kind]
Shapes = Mapping[str, tuple[int, int]]
_RUNGS = 28


@dataclass(frozen=True, slots=True)
class Costs:
    """What the precision of a linear layer costs.

    `prefill` is in picoseconds per weight and token of a prompt, from `python -m
    issun.benchmarks.kinds` (2026-11-29, one thread of a Xeon with AMX). Size decides, and
    decoding reads every byte once a token; `prefill_bytes` are the bytes that a picosecond of
    prefill counts as, so that of two precisions of about the same size the faster one is chosen.
    """

    prefill: Mapping[Kind, float] = field(
        default_factory=lambda: {
            "int4": 12.5,
            "int4-32": 18.4,
            "int8": 2.7,
            "int8-blocks": 16.5,
            "float32": 15.0,
        }
    )
    prefill_bytes: float = 0.005

    def of(self, shape: tuple[int, int], kind: Kind) -> float:
        """The cost of a linear layer (in, out) in bytes and their equivalents."""
        width, out = shape
        return linear_bytes(*shape, kind) + width * out * self.prefill[kind] * self.prefill_bytes

    def prefill_time(self, kinds: Mapping[str, Kind], shapes: Shapes) -> float:
        """The time of all linear layers for one token of a prompt, in picoseconds."""
        return sum(self.prefill[kind] * shapes[n][0] * shapes[n][1] for n, kind in kinds.items())


def linear_bytes(width: int, out: int, kind: Kind) -> int:
    """Bytes of a linear layer's weight on disk, scales included."""
    if kind == "float32":
        return 4 * width * out
    if kind == "int8":
        return width * out + 4 * out
    form = BLOCKS[kind]
    blocks = -(-width // form.block)
    return out * blocks * (form.block * form.bits // 8 + 4)


def ladder(losses: Sensitivities, shapes: Shapes, costs: Costs | None = None) -> list[Mixture]:
    """Mixtures from int4 everywhere up to float32, each one step of one linear layer further.

    `losses` are nats of each linear layer in each precision, comparable between linear layers.
    """
    costs = costs or Costs()
    steps = []
    for name, by_kind in losses.items():
        points = [(costs.of(shapes[name], kind), by_kind[kind], kind) for kind in KINDS]
        for before, after in pairwise(_hull(points)):
            steps.append((_slope(before, after), name, after[2]))
    mixture: Mixture = dict.fromkeys(losses, "int4")
    found = [dict(mixture)]
    for _, name, kind in sorted(steps, key=lambda step: -step[0]):
        mixture[name] = kind
        found.append(dict(mixture))
    return found


_Point = tuple[float, float, Kind]


def _hull(points: Sequence[_Point]) -> list[_Point]:
    """The first point, and those after it on the lower convex hull of (cost, loss)."""
    hull = [points[0]]
    for point in sorted(points[1:]):
        if point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(before: _Point, after: _Point) -> float:
    """Loss saved per cost; a step that costs nothing comes first."""
    saved, cost = before[1] - after[1], after[0] - before[0]
    return saved / cost if cost > 0 else float("inf")


def rungs(ladder: Sequence[Mixture], shapes: Shapes) -> list[int]:
    """About 28 places on the ladder, all of them at about even distances in bytes.

    Mixtures with a float32 linear layer are four times as large, and get every fourth of them.
    """
    sizes = [sum(linear_bytes(*shapes[n], kind) for n, kind in m.items()) for m in ladder]
    exact = next((i for i, m in enumerate(ladder) if "float32" in m.values()), len(ladder))
    found = set()
    for part, count in ((range(exact), _RUNGS * 3 // 4), (range(exact, len(ladder)), _RUNGS // 4)):
        if part:
            least, most = sizes[part[0]], sizes[part[-1]]
            for number in range(count + 1):
                size = least + (most - least) * number / count
                found.add(max(i for i in part if sizes[i] <= max(size, least)))
    return sorted(found)


def describe(kinds: Mapping[str, Kind]) -> str:
    """How many linear layers have each precision."""
    counted = ((kind, list(kinds.values()).count(kind)) for kind in KINDS)
    return ", ".join(f"{kind} for {count} linear layers" for kind, count in counted if count)
