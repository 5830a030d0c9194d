"""int8 on CPUs without VNNI: earlier bundles need inputs in 7 bits, today's need no change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from issun.benchmarks.divergence import mean_kl
from issun.export.quantize import quantize_column_pairs
from issun.export.weights import Array
from issun.runtime import Model
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.weights import session, weight_cache
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.reduced_range import reduce_range, sums_fit
from issun.runtime.weights.session import adapt_to_cpu, make_options, session_of
from issun.runtime.weights.weight_cache import WeightCache
from tests.export.test_int8_linear import int8_graph
from tests.export.test_quantize import largest_pair
from tests.runtime.packed import Notes, exact, logits

WIDTH, OUT = 96, 40


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this CPU's sums of signed bytes saturate."""
    for module in (session, weight_cache):
        monkeypatch.setattr(module, "integer_matmul_saturates", lambda: True)


def reduced_product(x: Array, values: NDArray[np.int8], name: str, floor: float | None) -> Array:
    """x (rows, in) times the weight `values` / 100 by the reduced graph of a linear layer."""
    model = earlier(int8_graph(values, name, floor))
    assert not sums_fit(model.graph)
    assert reduce_range(model.graph)
    opened = session_of(model.SerializeToString(), make_options(1))
    found: Array = opened.run(None, {"x": x})[0]
    return found


def earlier(content: bytes) -> Any:
    """The model with the constants that exports had when weights reached 127 in pairs."""
    before = {
        "step_127": ("step", np.float32(1 / 127)),
        "step_64": ("step", np.float32(1 / 127)),
        "middle_127": ("middle", np.uint8(128)),
        "middle_64": ("middle", np.uint8(128)),
        "low_255": ("low", np.uint8(0)),
        "finest": ("finest", np.float32(1 / 127 / 254)),
        "ratio": ("ratio", np.float32(1 / 254)),
    }
    model = parse_model(content)
    for tensor in model.graph.initializer:
        if tensor.name in before:
            tensor.name, value = before[tensor.name]
            tensor.raw_data = value.tobytes()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = before[name][0] if name in before else name
    return model


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
    content = earlier(int8_graph(values, "h.1.up")).SerializeToString()
    opened = session_of(content, make_options(1))
    found = opened.run(None, {"x": x})[0]
    expected = np.rint(x * 127) / 127 @ (values / 100)
    off = np.abs(found - expected).max() / np.abs(expected).max()
    assert (off > 0.1) == session.integer_matmul_saturates()


@pytest.mark.parametrize("name", ["h.0.up", "h.1.up", "h.1.down"])
def test_pairs_of_weights_do_not_overflow_with_inputs_of_8_bits(name: str) -> None:
    x, values = extremes(np.random.default_rng(3))
    floor = 1 if name == "h.1.down" else None
    if name != "h.0.up":  # which takes 7 bits at a time
        values = quantize_column_pairs(values.astype(np.float32)).values
    steps = {"h.0.up": 64 * 128, "h.1.up": 127, "h.1.down": 255}[name]
    shifted = x + (floor or 0)
    peaks = np.abs(shifted.reshape(len(x), 4 if floor else 1, -1)).max(axis=-1)
    step = np.maximum(np.repeat(peaks, WIDTH // peaks.shape[1], axis=1), 1e-9) / steps
    expected = np.rint(shifted / step) * step @ (values / 100)
    rows = np.abs(shifted).max(axis=-1) > 0
    for part in (slice(None), slice(4, 5)):  # several rows and a single one have other kernels
        opened = session_of(int8_graph(values, name, floor), make_options(1))
        found = opened.run(None, {"x": x[part]})[0]
        bound = 3e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found[rows[part]], expected[part][rows[part]], atol=bound)


@pytest.mark.parametrize("name", ["head-8", "head-17", "inner-90"])
def test_no_sum_of_an_exported_bundle_exceeds_16_bits(
    bundle: Callable[..., Path], name: str
) -> None:
    model = onnx.load(bundle(name) / "model.onnx")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    most = {"middle_64": 128, "middle_127": 255, "low_255": 255}  # of the inputs
    seen = set()
    for node in model.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            assert most[node.input[4]] * largest_pair(tensors[node.input[1]]) < 1 << 15
            seen.add(node.input[4])
    assert seen == set(most)


def test_other_graphs_stay_as_they_are(bundle: Callable[..., Path]) -> None:
    for path in (bundle("head-8", "float32"), EMBEDDED):
        model = parse_model((path / "model.onnx").read_bytes())
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
        (bundle("head-8") / "model.onnx", False, {}),
        (EMBEDDED / "model.onnx", True, {}),
        (probe, False, {"session.x64quantprecision": "1"}),
    ):
        options: Any = Options()
        assert adapt_to_cpu(parse_model(path.read_bytes()).graph, options) == changed
        assert options.entries == entries


def test_packed_weights_of_an_earlier_bundle_give_the_same_logits(
    cache: WeightCache,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    folder, notes = EMBEDDED, Notes()
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


@pytest.mark.parametrize("name", ["head-20-width-100", "head-40-untied", "vocab-8011"])
def test_logits_are_the_same_with_and_without_vnni(
    bundle: Callable[..., Path],
    cache: WeightCache,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    found = []
    for saturates in (False, True):
        for module in (session, weight_cache):
            monkeypatch.setattr(module, "integer_matmul_saturates", lambda known=saturates: known)
        found += [exact(bundle(name)), logits(bundle(name))]
    for other in found[1:]:
        assert np.array_equal(found[0], other)
    monkeypatch.setattr(session, "sums_fit", lambda graph: False)  # now with an exact kernel
    assert np.array_equal(found[0], exact(bundle(name)))


@pytest.mark.slow
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
