"""Mixed precision: the ladder of mixtures, and the promises of a budget and of a divergence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks.divergence import Logits, mean_kl
from issun.export import ExportOptions, export, frontier, native
from issun.export.calibrate import (
    NUM_WINDOWS_HELD_OUT,
    Calibrated,
    calibrate,
    calibration_ids,
    calibration_text,
)
from issun.export.calibrate import cut_windows as cut
from issun.export.checkpoint import Checkpoint, open_checkpoint
from issun.export.errors import CheckpointError
from issun.export.frontier import Frontier, Rung, too_small
from issun.export.kinds import KINDS, Kind
from issun.export.mixed import Costs, Mixture, ladder, linear_bytes, rungs
from issun.runtime import Model, ParameterError
from issun.runtime.manifest import read_manifest

# Bytes alone; each weight of 128 x 128.
BYTES = Costs(prefill_bytes=0.0)
SHAPES = {"a": (128, 128), "b": (128, 128), "c": (128, 256)}


def losses(int4: float, int4_32: float, int8: float, blocks: float) -> dict[Kind, float]:
    values = (int4, int4_32, int8, blocks, 0.0)
    return dict(zip(KINDS, values, strict=True))


def test_sizes_by_hand() -> None:
    assert linear_bytes(256, 3, "float32") == 3 * 256 * 4
    assert linear_bytes(256, 3, "int8") == 3 * 256 + 3 * 4
    assert linear_bytes(256, 3, "int8-blocks") == 3 * 8 * (32 + 4)
    assert linear_bytes(256, 3, "int4-32") == 3 * 8 * (16 + 4)
    assert linear_bytes(256, 3, "int4") == 3 * 2 * (64 + 4)
    assert linear_bytes(200, 3, "int4") == 3 * 2 * (64 + 4)  # the last block is padded


def test_a_prefill_that_is_slow_costs_as_much_as_bytes() -> None:
    costs = Costs(prefill={"int8": 10.0, "int8-blocks": 60.0}, prefill_bytes=0.01)
    assert costs.of((100, 2), "int8") == 200 + 8 + 200 * 10 * 0.01
    assert costs.of((100, 2), "int8-blocks") == 2 * 4 * 36 + 200 * 60 * 0.01


def test_the_largest_gain_per_byte_comes_first() -> None:
    found = ladder(
        # int8 saves 7 for the same bytes as the 1.5 of b, and as half the bytes of c.
        {"a": losses(8, 8, 1, 1), "b": losses(2, 2, 0.5, 0.5), "c": losses(8, 8, 1, 1)},
        SHAPES,
        BYTES,
    )
    assert found[:4] == [
        {"a": "int4", "b": "int4", "c": "int4"},
        {"a": "int8", "b": "int4", "c": "int4"},
        {"a": "int8", "b": "int4", "c": "int8"},
        {"a": "int8", "b": "int8", "c": "int8"},
    ]
    assert found[-1] == dict.fromkeys("abc", "float32")


def test_precisions_above_the_convex_hull_are_left_out() -> None:
    # Per weight 0.53, 0.63, 1.03 and 1.13 bytes: int4-32 saves little, and 8-bit blocks nothing.
    found = ladder({"a": losses(8, 7.9, 1, 1.5)}, {"a": (128, 128)}, BYTES)
    assert [mixture["a"] for mixture in found] == ["int4", "int8", "float32"]
    found = ladder({"a": losses(8, 4, 1, 0.9)}, {"a": (128, 128)}, BYTES)
    assert [m["a"] for m in found] == ["int4", "int4-32", "int8", "int8-blocks", "float32"]


def test_a_narrow_linear_is_no_smaller_in_4_bits() -> None:
    # Its one block of 128 is padded: other precisions are smaller, and this step comes first.
    found = ladder({"a": losses(8, 7, 1, 1), "b": losses(99, 7, 1, 1)},
                   {"a": (32, 64), "b": (128, 128)}, BYTES)  # fmt: skip
    assert found[1] == {"a": "int4-32", "b": "int4"}
    assert found[2] == {"a": "int4-32", "b": "int4-32"}  # saves far more


positive = st.floats(1e-9, 1e3)


@given(st.lists(st.tuples(positive, positive, positive, positive), min_size=1, max_size=9))
def test_every_step_of_a_ladder_loses_less(values: list[tuple[float, ...]]) -> None:
    by_linear = {f"h.{i}": losses(*four) for i, four in enumerate(values)}
    shapes = dict.fromkeys(by_linear, (256, 64))
    found = ladder(by_linear, shapes)
    for before, after in pairwise(found):
        (changed,) = [name for name in shapes if before[name] != after[name]]
        assert by_linear[changed][after[changed]] < by_linear[changed][before[changed]]
    assert set(found[0].values()) == {"int4"}
    assert set(found[-1].values()) == {"float32"}
    places = rungs(found, shapes)
    assert places == sorted(set(places))
    assert {places[0], places[-1]} == {0, len(found) - 1}


@dataclass
class Noisy:
    """Candidates whose divergence is the sum of their losses, times a factor of each mixture."""

    by_linear: dict[str, dict[Kind, float]]
    noise: float
    kinds: dict[Path, Mixture] = field(default_factory=dict)
    written: list[Mixture] = field(default_factory=list)

    def write(self, kinds: Mixture, path: Path) -> int:
        self.kinds[path] = kinds
        self.written.append(kinds)
        return 1000 + sum(linear_bytes(256, 64, kind) for kind in kinds.values())

    def kl(self, graph: Path) -> float:
        kinds = self.kinds[graph]
        rng = np.random.default_rng(abs(hash(tuple(sorted(kinds.items())))))
        loss = sum(self.by_linear[name][kind] for name, kind in kinds.items())
        return float((loss + 1e-4) * np.exp(self.noise * rng.normal()))


@st.composite
def frontiers(draw: st.DrawFn) -> Frontier:
    seed, linears = draw(st.integers(0, 10**6)), draw(st.integers(2, 30))
    rng = np.random.default_rng(seed)
    by_linear = {
        f"h.{i}": losses(*(rng.lognormal(-5, 1.5) * np.array([1, 0.6, 0.05, 0.02])))
        for i in range(linears)
    }
    shapes = dict.fromkeys(by_linear, (256, 64))
    noisy: Any = Noisy(by_linear, draw(st.sampled_from([0.0, 0.1, 0.4])))
    all_int8: Mixture = dict.fromkeys(shapes, "int8")
    size = noisy.write(all_int8, Path())
    int8 = Rung(size=size, kl=1.3 * noisy.kl(Path()), kinds=all_int8, uniform="int8")
    exact = Rung(size=4 * size, kl=0.0, kinds={}, uniform="float32")
    mixtures = ladder(by_linear, shapes)
    return Frontier(
        noisy, noisy, mixtures, shapes, Path(), int8, exact, progress=lambda done, total: None
    )


@given(frontiers(), st.data())
def test_a_larger_budget_is_never_less_faithful(found: Frontier, data: st.DataObject) -> None:
    least = found.measure(0).size
    budgets = sorted(data.draw(st.lists(st.integers(least, 5 * least), min_size=2, max_size=8)))
    chosen = [found.within(budget) for budget in budgets]
    assert all(rung.size <= budget for rung, budget in zip(chosen, budgets, strict=True))
    divergences = [rung.kl for rung in chosen]
    assert divergences == sorted(divergences, reverse=True)
    with pytest.raises(CheckpointError, match="all linear layers in int4"):
        found.within(least - 1)


@pytest.mark.slow
@given(frontiers())
def test_each_rung_is_written_once(found: Frontier) -> None:
    candidates: Any = found.candidates
    candidates.written.clear()
    found.within(10**9)
    found.points([])
    assert len(candidates.written) == len({tuple(kinds.items()) for kinds in candidates.written})


@given(frontiers(), st.floats(1e-5, 1.0))
def test_a_divergence_is_kept_by_a_small_bundle(found: Frontier, max_kl: float) -> None:
    rung = found.closest(max_kl)
    assert rung.kl <= max_kl
    uniform = [found.int8, found.exact, found.measure(0)]
    assert rung.size <= min(other.size for other in uniform if other.kl <= max_kl)


@dataclass(frozen=True)
class HeldOut:
    """A checkpoint and the windows that nothing was fitted to, measured by separate reloads."""

    source: Path
    windows: np.ndarray[Any, Any]
    reference: Logits

    def kl(self, bundle: Path) -> float:
        return mean_kl(self.reference, scores(bundle, self.windows))


def scores(bundle: Path, windows: np.ndarray[Any, Any]) -> Logits:
    with Model.load(bundle, kv_cache="float32") as model:
        return np.concatenate([model.score(window.tolist()) for window in windows])


def held_out(source: Path, float32: Path, text: str) -> HeldOut:
    opened: Checkpoint = open_checkpoint(source)
    with Model.load(float32) as model:
        ids = calibration_ids(
            opened.network,
            model.tokenizer,
            read_manifest(float32).prompt,
            text,
            windows=NUM_WINDOWS_HELD_OUT,
            held_out=True,
        )
    windows = cut(opened.network, ids)
    return HeldOut(source, windows, scores(float32, windows))


def weights_size(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.glob("model.onnx*"))


def divergence_in(bundle: Path) -> float:
    found = re.search(r"KL divergence (\S+) on a held-out", read_manifest(bundle).precision.linears)
    assert found
    return float(found[1])


@pytest.fixture
def tiny(checkpoint: Callable[[str], Path], bundle: Callable[..., Path]) -> HeldOut:
    return held_out(checkpoint("head-8"), bundle("head-8", "float32"), calibration_text())


@pytest.mark.slow
def test_a_frontier_and_the_bundle_of_one_of_its_budgets(tmp_path: Path, tiny: HeldOut) -> None:
    points = frontier(tiny.source, work=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    assert len(points) == 10
    divergences = [point.kl for point in points]
    assert divergences == sorted(divergences, reverse=True)
    budget = tmp_path / "budget"
    export(tiny.source, budget, ExportOptions(budget=points[4].budget, kv_cache="int8"))
    # Offsets in the graph may have a digit more or less.
    assert weights_size(budget) == pytest.approx(points[4].size, abs=100)
    assert tiny.kl(budget) == pytest.approx(points[4].kl, rel=0.01)
    assert set(read_manifest(budget).graphs) == {"float32", "int8"}
    assert divergence_in(budget) == pytest.approx(points[4].kl, rel=0.06)  # two digits


@pytest.mark.slow
def test_a_divergence_is_kept_on_text_that_nothing_was_fitted_to(
    tmp_path: Path, tiny: HeldOut
) -> None:
    export(tiny.source, tmp_path / "kl", ExportOptions(max_kl=0.02, gptq=False))
    assert 0.8 * 0.02 < tiny.kl(tmp_path / "kl") <= 1.01 * 0.02


@pytest.mark.slow
def test_the_plain_int8_bundle_is_made_once(
    tmp_path: Path, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []

    def counted(*args: Any, **options: Any) -> Calibrated:
        passes.append(options["smooth_for"])
        return calibrate(*args, **options)

    source = checkpoint("head-8")
    export(source, tmp_path / "int8", ExportOptions(kv_cache="int8"))
    monkeypatch.setattr(native, "calibrate", counted)
    monkeypatch.setattr(Frontier, "within", lambda self, budget: self.int8)
    mixed = ExportOptions(budget=10**9, kv_cache="int8", gptq=False)
    manifest = export(source, tmp_path / "mixed", mixed)
    assert passes == ["int4", "int8"]  # for mixtures, and for plain int8
    assert manifest.files == read_manifest(tmp_path / "int8").files
    assert manifest.precision.name == "int8"


def ja_small_texts(shared: Path) -> list[str]:
    novel = (shared / "data" / "text" / "novel-train.txt").read_text(encoding="utf-8")
    return [calibration_text(), *(novel[i : i + 24_000] for i in range(0, 264_000, 24_000))]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(12))
def test_promises_with_different_texts(
    tmp_path: Path, shared: Path, ja_small: Callable[..., Path], number: int
) -> None:
    source, text = shared / "checkpoints" / "ja-small", ja_small_texts(shared)[number]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    read = held_out(source, ja_small("float32"), text)
    common = {"calibrate": tmp_path / "text.txt"}
    points = frontier(source, options=ExportOptions(**common), work=tmp_path / "x")  # type: ignore[arg-type]
    divergences = [point.kl for point in points]
    assert divergences == sorted(divergences, reverse=True)
    budget = points[number % 10]
    export(source, tmp_path / "budget", ExportOptions(budget=budget.budget, **common))  # type: ignore[arg-type]
    assert weights_size(tmp_path / "budget") <= budget.budget
    assert read.kl(tmp_path / "budget") == pytest.approx(budget.kl, rel=0.01)
    max_kl = (0.004, 0.001, 0.0005, 0.00025)[number % 4]
    export(source, tmp_path / "kl", ExportOptions(max_kl=max_kl, **common))  # type: ignore[arg-type]
    assert read.kl(tmp_path / "kl") <= 1.001 * max_kl
    promised(tmp_path / "kl", source, read, max_kl, common)


def promised(
    mixed: Path, source: Path, read: HeldOut, max_kl: float, common: Mapping[str, Any]
) -> None:
    """The bundle is no larger than a uniform one that keeps the promise, and close to it."""
    found, smallest = read.kl(mixed), weights_size(mixed)
    int4 = mixed.with_name("int4")
    for precision, gptq in (("int4", True), ("int8", None)):
        plain = mixed.with_name(precision)
        export(source, plain, ExportOptions(precision=precision, gptq=gptq, **common))  # type: ignore[arg-type]
        if read.kl(plain) <= max_kl:
            assert smallest <= weights_size(plain)
    assert found >= 0.8 * max_kl or smallest <= weights_size(int4)


@pytest.mark.slow
def test_limits_beyond_the_uniform_bundles(tmp_path: Path, shared: Path) -> None:
    source = shared / "checkpoints" / "ja-small"
    with pytest.raises(CheckpointError, match="with all linear layers in int4"):
        export(source, tmp_path / "a", ExportOptions(budget=10**6))
    assert list(tmp_path.iterdir()) == []
    options = ExportOptions(max_kl=1e-7, gptq=False)
    assert export(source, tmp_path / "b", options).precision.name == "float32"


@pytest.mark.parametrize(
    ("budget", "least", "parts"),
    [
        (600_000_000, 1_310_000_000, ("needs 1,310 MB with", "the budget of 600 MB.")),
        (20_000, 900_000, ("needs 900 kB with", "the budget of 20 kB.")),
        (999, 10**6, ("needs 1 MB with", "the budget of 999 bytes.")),
    ],
)
def test_a_budget_that_is_too_small_is_named_in_its_unit(
    budget: int, least: int, parts: tuple[str, str]
) -> None:
    assert re.search(".*".join(map(re.escape, parts)), str(too_small(budget, least)))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"budget": 1, "max_kl": 1.0}, "not both"),
        ({"max_kl": 0.0}, "above 0"),
        ({"max_kl": float("nan")}, "above 0"),
        ({"budget": 10, "via": "optimum"}, "with Optimum"),
    ],
)
def test_options_that_contradict_each_other(options: Any, part: str) -> None:
    with pytest.raises(ParameterError, match=part):
        ExportOptions(**options)
