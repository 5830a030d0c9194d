"""The cost of one more row: measured once on a machine, whatever else runs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from issun.runtime import SamplingParams
from issun.runtime.decoding import row_cost as module
from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.decoding.row_cost import measure_row_cost, row_cost
from issun.runtime.errors import OutOfMemoryError
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime.packed import load, the_entry
from tests.runtime.test_drafts import _count_rows


class Machine:
    """A decoder whose steps take `1 + cost x (rows - 1)` hundredths of a second, and its clock.

    Noise is added to the steps, in hundredths of a second.
    """

    kv_cache = "int8"
    session = SimpleNamespace(get_session_options=lambda: SimpleNamespace(intra_op_num_threads=2))

    def __init__(self, cost: float, noise: Iterator[float] | None = None) -> None:
        self.cost, self.noise, self.now, self.steps = cost, noise, 0.0, 0

    def new_cache(self, positions: int) -> Cache:
        cache = Cache(1)
        cache.positions = positions
        return cache

    def forward(self, cache: Cache, chunks: list[list[int]], rows: Any) -> None:
        (chunk,) = chunks
        cache.ids[0] += chunk
        assert len(cache.ids[0]) <= cache.positions
        self.steps += 1
        self.now += (1 + self.cost * (len(chunk) - 1) + next(self.noise or iter([0.0]))) / 100


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(*arguments: Any) -> Machine:
        made = Machine(*arguments)
        monkeypatch.setattr(module.time, "perf_counter", lambda: made.now)
        return made

    return make


@pytest.mark.parametrize(("cost", "found"), [(0.0, 2**-7), (0.12, 0.125), (0.65, 0.5**0.5), (9, 2)])
def test_a_measured_cost_is_rounded(machine: Callable[..., Any], cost: float, found: float) -> None:
    assert measure_row_cost(machine(cost)) == pytest.approx(found)


def test_other_programs_and_a_slow_first_step_do_not_count(machine: Callable[..., Any]) -> None:
    noise = (30.0 if n < 3 else 5.0 * (n % 3 == 0) for n in count())
    assert measure_row_cost(machine(0.25, noise)) == 0.25


def test_slow_steps_are_measured_three_times(machine: Callable[..., Any]) -> None:
    slow = machine(99.0)
    measure_row_cost(slow)
    assert slow.steps == 1 + 2 * (1 + 3)


def test_it_is_measured_once(machine: Callable[..., Any], tmp_path: Path) -> None:
    first = machine(0.125)
    assert row_cost(first, "int8", tmp_path) == 0.125
    (path,) = tmp_path.iterdir()
    assert path.name == "row-cost-int8-2.json"
    later = machine(0.5)
    assert row_cost(later, "int8", tmp_path) == 0.125
    assert later.steps == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"NaN", b"-1", b"1e9", b"\xff"])
def test_a_damaged_file_is_replaced(
    machine: Callable[..., Any], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "row-cost-int8-2.json"
    path.write_bytes(content)
    assert row_cost(machine(0.5), "int8", tmp_path) == 0.5
    assert path.read_bytes() == b"0.5"


def test_without_memory_or_an_entry_the_known_costs_count(
    monkeypatch: pytest.MonkeyPatch, machine: Callable[..., Any], tmp_path: Path
) -> None:
    full = machine(0.5)

    def new_cache(positions: int) -> Cache:
        raise OutOfMemoryError("There is not enough memory.")

    full.new_cache = new_cache
    for saturates, rounds, costs in (
        (False, True, [None, 0.04, 0.24]),
        (True, True, [None, 0.18, 0.40]),
        (False, False, [None, 0.18, 0.40]),
    ):
        monkeypatch.setattr(module, "integer_matmul_saturates", lambda known=saturates: known)
        monkeypatch.setattr(module, "rounds_activations", lambda known=rounds: known)
        for entry in (None, tmp_path):
            found = [row_cost(full, name, entry) for name in ("float32", "int8", "int4")]
            assert found == costs
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_uses_the_cost_in_its_entry(
    ja_small: Callable[..., Path], cache: WeightCache
) -> None:
    """int8 with an int8 KV cache: whether and how far tokens are drafted changes no answer."""
    folder = ja_small("int8", kv_cache="int8")
    with load(folder) as model:
        assert model.decoder.row_cost
    path = the_entry(cache) / "row-cost-int8-1.json"
    params = SamplingParams(temperature=0, min_new_tokens=60, max_new_tokens=60)
    answers, rows = [], []
    for cost in (b"0.0625", b"2.0"):
        path.write_bytes(cost)
        with load(folder) as model:
            assert model.decoder.row_cost == float(cost)
            steps = _count_rows(model)
            prompt = model.prompt(
                "次の文を写してください。", "吾輩は猫である。名前はまだ無い。" * 3
            )
            answers.append(model.generate(prompt, params).ids)
            rows.append(max(steps))
    assert answers[0] == answers[1]
    assert rows[0] > 1 == rows[1]
