"""int8 on CPUs without VNNI: inputs in 7 bits, whose products no kernel's sums overflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.benchmarks.divergence import mean_kl
from issun.export.weights import Array
from issun.runtime import Model
from issun.runtime.weights import session, weight_cache
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.reduced_range import reduce_range
from issun.runtime.weights.session import adapt_to_cpu, make_options, session_of
from issun.runtime.weights.weight_cache import WeightCache
from tests.export.test_int8_linear import int8_graph
from tests.runtime.packed import Notes, exact, logits

WIDTH, OUT = 96, 40


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this CPU's sums of signed bytes saturate."""
    for module in (session, weight_cache):
        monkeypatch.setattr(module, "integer_matmul_saturates", lambda: True)


def reduced_product(x: Array, values: NDArray[np.int8], name: str, floor: float | None) -> Array:
    """x (rows, in) times the weight `values` / 100 by the reduced graph of a linear layer."""
    model = parse_model(int8_graph(values, name, floor))
    assert reduce_range(model.graph)
    opened = session_of(model.SerializeToString(), make_options(1))
    found: Array = opened.run(None, {"x": x})[0]
    return found


def extremes(rng: np.random.Generator) -> tuple[Array, NDArray[np.int8]]:
    """Inputs and weights mostly at the ends of their range, with equal signs in a column."""
    x = rng.choice(np.float32([-1, 0.3, 1, 1, 1]), (9, WIDTH))
    x[0], x[1] = 1, -1
    values = rng.choice(np.int8([-127, 127]), (1, OUT)).repeat(WIDTH, axis=0)
    values[rng.random(values.shape) < 0.1] = 5
    return x, values


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_symmetric_inputs_have_64_steps_a_side(scale: float) -> None:
    x, values = extremes(np.random.default_rng(0))
    once = np.rint(x * 64) / 64
    twice = once + np.rint((x - once) * 64 * 128) / (64 * 128)
    for name, rounded in (("h.1.up", once), ("h.0.up", twice)):
        found = reduced_product(np.float32(scale) * x, values, name, None)
        expected = scale * (rounded @ (values / 100))
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_shifted_inputs_have_129_steps_a_group() -> None:
    x, values = extremes(np.random.default_rng(1))
    shifted = (x + 1).reshape(len(x), 4, -1) * np.float32([1, 2, 3, 5])[:, None]
    peaks = shifted.max(axis=-1, keepdims=True)
    rounded = np.rint(shifted / np.maximum(peaks, 1e-9) * 129) / 129 * peaks
    expected = rounded.reshape(x.shape) @ (values / 100)
    rows = expected.any(axis=-1)  # a row of the lowest values has no steps
    assert rows.sum() == len(x) - 1
    found = reduced_product(shifted.reshape(x.shape) - np.float32(1), values, "h.1.down", 1)
    np.testing.assert_allclose(found[rows], expected[rows], atol=3e-6 * np.abs(expected).max())


def test_8_bits_overflow_where_7_do_not() -> None:
    x, values = extremes(np.random.default_rng(2))
    opened = session_of(int8_graph(values, "h.1.up"), make_options(1))
    found = opened.run(None, {"x": x})[0]
    expected = np.rint(x * 127) / 127 @ (values / 100)
    off = np.abs(found - expected).max() / np.abs(expected).max()
    assert (off > 0.1) == session.integer_matmul_saturates()


def test_other_graphs_stay_as_they_are(bundle: Callable[..., Path]) -> None:
    for precision in ("float32", "int8"):
        content = (bundle("head-8", precision) / "model.onnx").read_bytes()
        model = parse_model(content)
        for tensor in model.graph.initializer:
            if tensor.name == "middle":
                tensor.raw_data = b"\x7f"
        before = model.SerializeToString()
        assert not reduce_range(model.graph)
        assert model.SerializeToString() == before


def test_a_graph_with_an_integer_product_of_another_kind_stays_as_it_is() -> None:
    model = parse_model(int8_graph(np.ones((WIDTH, OUT), np.int8), "h.1.up"))
    (product,) = (n for n in model.graph.node if n.op_type == "MatMulIntegerToFloat")
    product.input[4] = "another"
    before = model.SerializeToString()
    assert not reduce_range(model.graph)
    assert model.SerializeToString() == before


class Options:
    """Session options that can be read."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


@pytest.mark.usefixtures("saturating")
def test_integer_products_of_other_exporters_are_computed_exactly(
    bundle: Callable[..., Path],
) -> None:
    probe = Path(session.__file__).with_name("saturation.onnx")
    for path, changed, entries in (
        (bundle("head-8") / "model.onnx", True, {}),
        (probe, False, {"session.x64quantprecision": "1"}),
    ):
        options: Any = Options()
        assert adapt_to_cpu(parse_model(path.read_bytes()).graph, options) == changed
        assert options.entries == entries


@pytest.mark.parametrize("name", ["head-20-width-100", "head-40-untied", "vocab-8011"])
def test_packed_weights_give_the_same_logits(
    bundle: Callable[..., Path],
    cache: WeightCache,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    name: str,
) -> None:
    folder, notes = bundle(name), Notes()
    for module in (session, weight_cache):
        monkeypatch.setattr(module, "integer_matmul_saturates", lambda: False)
    logits(folder)
    eight = exact(folder)
    request.getfixturevalue("saturating")
    seven = exact(folder)
    assert not np.array_equal(seven, eight)
    for _ in range(2):
        assert np.array_equal(logits(folder, notes), seven)
    assert [note[:19] for note in notes] == ["Packing the weights"]
    assert len(cache.entries()) == 2  # one for each kind of CPU


@pytest.mark.slow
@pytest.mark.usefixtures("saturating")
def test_a_trained_model_stays_close_to_float32(
    ja_small: Callable[..., Path], shared: Path
) -> None:
    text = (shared / "data" / "text" / "novel-eval.txt").read_text(encoding="utf-8")[:2000]
    found = []
    for precision in ("float32", "int8"):
        with Model.load(ja_small(precision), threads=1) as model:
            ids = model.encode(text)[:800]
            found.append(np.concatenate([model.score(ids[:400]), model.score(ids[400:])]))
    assert mean_kl(*found) < 0.0004
