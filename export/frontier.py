"""The measured mixtures of precisions of a checkpoint, and the uniform bundles next to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from issun.export.calibrate import Calibrated
from issun.export.candidates import Candidates
from issun.export.errors import CheckpointError
from issun.export.kinds import Kind, Uniform
from issun.export.lazy import CheckpointWeights
from issun.export.mixed import Costs, Mixture, Shapes, describe, ladder, rungs
from issun.export.sensitivity import Sensitivities
from issun.export.verify import Reference

_SCALE_WINDOWS = 4  # on which the blocks are compared with each other
_CLOSE = 0.8  # a mixture above this part of the allowed divergence need not become smaller
_POINTS = 10
_TRIALS = 8  # of a smaller mixture between two steps of the ladder


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A mixture or a uniform bundle: bytes of graph and data, and nats from float32."""

    size: int
    kl: float
    kinds: Mapping[str, Kind]
    uniform: Uniform | None = None

    @property
    def name(self) -> str:
        """How it is shown."""
        return self.uniform or describe(self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a budget buys: sizes in bytes, nats from float32, and speeds relative to plain int8.

    The speeds are for ranking only: prefill by the time of linear layers with `Costs`, which were
    measured on one machine, decode by bytes.
    """

    budget: int
    size: int
    kl: float
    prefill: float
    decode: float
    precision: str


@dataclass(slots=True)
class Frontier:
    """Measures mixtures on held-out windows, each by a small graph over the candidates' file.

    `exact` has the size of the float32 bundle, and `int8` is that of the plain int8 bundle. All
    files are in `folder`.
    """

    candidates: Candidates
    reference: Reference
    ladder: list[Mixture]
    shapes: Shapes
    folder: Path
    int8: Rung
    exact: Rung
    progress: Callable[[int, int], object]
    _graphs: dict[int, tuple[Path, int]] = field(default_factory=dict)
    _measured: dict[int, Rung] = field(default_factory=dict)

    def within(self, budget: int) -> Rung:
        """The most faithful rung of at most `budget` bytes; raises CheckpointError if none is.

        The rungs do not depend on the budget, so that a larger one is never less faithful.
        """
        places = rungs(self.ladder, self.shapes)
        sizes = {place: self._size(place) for place in places}
        fitting = [place for place in places if sizes[place] <= budget]
        if not fitting:
            raise too_small(budget, min(sizes.values()))
        found = [self.int8, self.exact]
        for number, place in enumerate(fitting):
            self.progress(number, len(fitting))
            found.append(self.measure(place))
        self.progress(len(fitting), len(fitting))
        return min((r for r in found if r.size <= budget), key=lambda r: (r.kl, r.size))

    def closest(self, max_kl: float) -> Rung:
        """The smallest rung whose divergence is at most `max_kl`, found by bisection."""
        low, high = 0, len(self.ladder) - 1
        found = [rung for rung in (self.int8, self.exact) if rung.kl <= max_kl]
        if self.measure(low).kl <= max_kl:
            return self.measure(low)
        if self.measure(high).kl > max_kl:
            return min(found, key=lambda rung: rung.size)
        while high - low > 1 and self.measure(high).kl < _CLOSE * max_kl:
            middle = (low + high) // 2
            low, high = (low, middle) if self.measure(middle).kl <= max_kl else (middle, high)
        return min([*found, self._trimmed(high, max_kl)], key=lambda rung: rung.size)

    def measure(self, place: int) -> Rung:
        """The rung at a place of the ladder."""
        if place not in self._measured:
            graph, size = self._graph(place)
            kl = self.reference.kl(graph)
            self._measured[place] = Rung(size=size, kl=kl, kinds=self.ladder[place])
        return self._measured[place]

    def _trimmed(self, place: int, max_kl: float) -> Rung:
        """The rung at `place`, with single steps before it left out while `max_kl` holds."""
        best = self.measure(place)
        for step in range(place - 1, max(place - 1 - _TRIALS, 0), -1):
            if best.kl >= _CLOSE * max_kl:
                break
            changed = {n for n in self.shapes if self.ladder[step][n] != self.ladder[step - 1][n]}
            kinds = {
                n: self.ladder[step - 1][n] if n in changed else k for n, k in best.kinds.items()
            }
            graph = self.folder / "trimmed.onnx"
            size = self.candidates.write(kinds, graph)
            rung = Rung(size=size, kl=self.reference.kl(graph), kinds=kinds)
            if rung.kl <= max_kl and rung.size < best.size:
                best = rung
        return best

    def points(self, sizes: Sequence[int]) -> list[Point]:
        """What `within` finds for each size; by default for ten between int4 and 8-bit blocks."""
        if not sizes:
            exact = (i for i, m in enumerate(self.ladder) if "float32" in m.values())
            last = next(exact, len(self.ladder)) - 1
            least, most = self._size(0), self._size(last)
            sizes = [least + (most - least) * i // (_POINTS - 1) for i in range(_POINTS)]
        return [self._point(size, self.within(size)) for size in sizes]

    def _point(self, budget: int, rung: Rung) -> Point:
        costs = Costs()
        plain = costs.prefill_time(self.int8.kinds, self.shapes)
        return Point(
            budget=budget,
            size=rung.size,
            kl=rung.kl,
            prefill=plain / costs.prefill_time(rung.kinds, self.shapes),
            decode=self.int8.size / rung.size,
            precision=rung.name,
        )

    def _size(self, place: int) -> int:
        return self._graph(place)[1]

    def _graph(self, place: int) -> tuple[Path, int]:
        """The graph of a place of the ladder, written once, and its size with its data."""
        if place not in self._graphs:
            graph = self.folder / f"rung-{place}.onnx"
            self._graphs[place] = graph, self.candidates.write(self.ladder[place], graph)
        return self._graphs[place]


def open_ladder(
    weights: CheckpointWeights,
    candidates: Candidates,
    reference: Reference,
    calibrated: Calibrated,
    progress: Callable[[int, int], object],
) -> tuple[list[Mixture], Shapes]:
    """The ladder of mixtures, and the shapes of the linear layers.

    Sensitivities compare linear layers of one block only. What each block loses at the end of the
    network is measured: with its linear layers in int4 and all others in int8, against all in int8.
    """
    shapes = {name: weights.linear_shape(f"{name}.weight") for name in calibrated.sensitivities}
    graph = candidates.folder / "block.onnx"

    def kl(block: str) -> float:
        kinds: Mixture = {n: "int4" if n.startswith(block) else "int8" for n in shapes}
        candidates.write(kinds, graph)
        return reference.kl(graph, windows=_SCALE_WINDOWS)

    least = kl("none")
    losses: Sensitivities = {}
    for layer in range(weights.network.n_layer):
        progress(layer, weights.network.n_layer)
        block = f"h.{layer}."
        own = {n: found for n, found in calibrated.sensitivities.items() if n.startswith(block)}
        total = sum(by_kind["int4"] for by_kind in own.values())
        scale = max(kl(block) - least, 1e-9) / max(total, 1e-30)
        for name, by_kind in own.items():
            losses[name] = {kind: scale * loss for kind, loss in by_kind.items()}
    return ladder(losses, shapes), shapes


def too_small(budget: int, least: int) -> CheckpointError:
    """The error for a budget below `least`, the size of int4 everywhere."""
    return CheckpointError(
        "The model needs {least} with all linear layers in int4, more than the budget of {budget}.",
        least=_size(least),
        budget=_size(budget),
    )


def _size(size: int) -> str:
    """`1,310 MB`, or smaller units below 1 MB."""
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.0f} {name}"
    return f"{size} bytes"
