"""The exported graph against recorded outputs of transformers, and its own consistency."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from issun.benchmarks.divergence import changed_argmax, mean_kl, score_windows
from issun.export.checkpoint import Checkpoint, open_checkpoint
from issun.export.graph import build_graph
from issun.export.kinds import PRECISIONS
from issun.export.lazy import CheckpointWeights
from issun.export.network import Network
from issun.export.weights import Array, Tensor
from issun.runtime import Conversation, Model, SamplingParams, Turn
from issun.runtime.decoding.decoder import Decoder, IssunDecoder, Logits
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.session import open_session
from tests import recordings as rec
from tests.checkpoints import SHAPES
from tests.conftest import Bundles

TOLERANCE = 1e-4
SURE_GAP = 2e-4  # below this gap the two likeliest tokens may swap places
SAME = 1e-5
NUM_TOKENS = 600


def whole(decoder: Decoder, ids: Sequence[int]) -> Logits:
    """Logits of every position from one forward pass."""
    return decoder.forward(decoder.new_cache(), [ids], range(len(ids)))


def in_chunks(decoder: Decoder, ids: Sequence[int], sizes: Sequence[int]) -> Logits:
    """Logits of every position, computed in chunks whose sizes cycle through `sizes`."""
    cache, rows, start, turn = decoder.new_cache(), [], 0, 0
    while start < len(ids):
        chunk = ids[start : start + sizes[turn % len(sizes)]]
        rows.append(decoder.forward(cache, [chunk], range(len(chunk))))
        start, turn = start + len(chunk), turn + 1
    return np.concatenate(rows)


def recorded_difference(decoder: Decoder, recording: rec.Recording) -> float:
    return recording.difference(np.concatenate([whole(decoder, p) for p in recording.prompts]))


def assert_greedy(decoder: Decoder, recording: rec.Recording) -> None:
    cache = decoder.new_cache()
    logits = decoder.prefill(cache, recording.prompts[-1])
    assert len(recording.greedy) == rec.NUM_GREEDY
    for token, gap in zip(recording.greedy, recording.gaps, strict=True):
        assert int(logits.argmax()) == token or gap < SURE_GAP
        logits = decoder.step(cache, token)


# Against transformers


@pytest.mark.parametrize("name", SHAPES)
def test_float32_logits_equal_those_of_transformers(bundle: Bundles, name: str) -> None:
    recording = rec.load_recording(name, SHAPES[name].vocab_size)
    assert recording.prompts == rec.make_prompts(SHAPES[name].vocab_size)
    assert recording.logits.std() >= 2
    with Model.load(bundle(name, "float32")) as model:
        assert recorded_difference(model.decoder, recording) <= TOLERANCE
        assert_greedy(model.decoder, recording)


@pytest.mark.slow
def test_float32_logits_of_the_trained_model_equal_those_of_transformers(ja_small: Bundles) -> None:
    with Model.load(ja_small("float32")) as model:
        recording = rec.load_recording("ja-small", model.decoder.vocab_size)
        assert recorded_difference(model.decoder, recording) <= TOLERANCE
        assert_greedy(model.decoder, recording)


@pytest.mark.sampled
@pytest.mark.parametrize("name", rec.CHATS)
def test_conversation_equals_that_of_the_published_code(ja_small: Bundles, name: str) -> None:
    role, history = rec.CHATS[name]
    turns = [Turn(u.removeprefix("User:"), a.removeprefix("Assistant:"))
             for u, a in zip(history[::2], history[1::2], strict=True)]  # fmt: skip
    recorded = json.loads((rec.RECORDED / "transcripts.json").read_text(encoding="utf-8"))[name]
    params = SamplingParams(temperature=0, max_new_tokens=100)
    with Model.load(ja_small("float32")) as model:
        for question, expected in zip(rec.QUESTIONS, recorded, strict=True):
            # For each message the published code drops as few turns as necessary.
            least = rec.fewest_dropped(model, role, turns, question)
            conversation = Conversation(model, role, params=params)
            conversation.turns += turns[least:]
            answer = conversation.reply(question)
            turns.append(conversation.turns[-1])
            assert answer.timings.prompt_tokens == expected["prompt_tokens"]
            assert answer.ids == expected["ids"]
            assert answer.text == expected["text"]
            assert answer.dropped_turns == 0
            assert (least > 0) is (name == "long")


# Wrong graphs are detected


class Zeros(Tensor):
    """A weight of zeros."""

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        return np.zeros(self.shape, np.float32)[start:stop]


def dropped(*names: str) -> Callable[[Checkpoint], Checkpoint]:
    def change(checkpoint: Checkpoint) -> Checkpoint:
        zeros = {name: Zeros(name, checkpoint.tensors[name].shape, "F32") for name in names}
        return replace(checkpoint, tensors=checkpoint.tensors | zeros)

    return change


def configured(**fields: object) -> Callable[[Checkpoint], Checkpoint]:
    def change(checkpoint: Checkpoint) -> Checkpoint:
        network: Network = replace(checkpoint.network, **fields)  # type: ignore[arg-type]
        return replace(checkpoint, network=network)

    return change


def shifted(by: int, *names: str) -> Callable[[ir.Model], None]:
    """Add `by` to the graph inputs `names`."""

    def edit(model: ir.Model) -> None:
        first, tape = model.graph[0], ir.tape.Tape()
        for value in [v for v in model.graph.inputs if v.name in names]:
            users = list(value.uses())
            constant = ir.tensor(np.array(by, value.dtype.numpy()), name=f"{value.name}.by")
            moved = tape.op("Add", [value, tape.initializer(constant)])
            for node, index in users:
                node.replace_input_with(index, moved)
        for initializer in tape.initializers:
            model.graph.register_initializer(initializer)
        model.graph.insert_before(first, tape.nodes)

    return edit


def unchanged(thing: object) -> object:
    return thing


BIASES = ("qkv", "out", "up", "down", "norm_1", "norm_2")
# Change of the checkpoint, change of the graph, and whether the result is wrong. The first two
# entries change nothing: they show that the test itself does not cause the difference.
MUTATIONS: dict[str, tuple[Callable[..., object], Callable[..., object], bool]] = {
    "none": (unchanged, unchanged, False),
    "shift of 0": (unchanged, shifted(0, "seqlens_k", "position_ids"), False),
    "erf gelu": (configured(activation="gelu"), unchanged, True),
    "epsilon 1e-6": (configured(epsilon=1e-6), unchanged, True),
    "mask off by one": (unchanged, shifted(1, "seqlens_k", "total_sequence_length"), True),
    "position off by one": (unchanged, shifted(1, "position_ids"), True),
    **{
        f"no {name} bias": (dropped(f"h.0.{name}.bias"), unchanged, True) for name in BIASES
    },
    "no norm bias": (dropped("norm.bias"), unchanged, True),
}  # fmt: skip


@pytest.mark.parametrize("name", ["head-8", "vocab-8011", "bfloat16-sharded", "scaled-by-layer"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_fails_the_tolerance(
    checkpoint: Callable[[str], Path], bundle: Bundles, tmp_path: Path, name: str, mutation: str
) -> None:
    change, edit, wrong = MUTATIONS[mutation]
    changed = change(open_checkpoint(checkpoint(name)))
    assert isinstance(changed, Checkpoint)
    weights = CheckpointWeights(changed.network, changed.tensors, "float32")
    graph = build_graph(changed.network, weights)
    edit(graph)
    ir.save(graph, tmp_path / "model.onnx")
    architecture = read_manifest(bundle(name, "float32")).architecture
    decoder = IssunDecoder(open_session(tmp_path / "model.onnx"), architecture)
    recording = rec.load_recording(name, architecture.vocab_size)
    assert (recorded_difference(decoder, recording) > TOLERANCE) is wrong


# Against itself


@pytest.fixture(scope="module")
def novel(shared: Path) -> str:
    """The evaluation text."""
    text = (shared / "data" / "text" / "novel-eval.txt").read_bytes()[:20_000]
    return text.decode("utf-8", "ignore")


@pytest.mark.sampled
@pytest.mark.parametrize("name", [*SHAPES, "ja-small"])
def test_float32_does_not_depend_on_chunk_sizes(
    request: pytest.FixtureRequest, bundle: Bundles, name: str
) -> None:
    folder = (
        request.getfixturevalue("ja_small")("float32")
        if name == "ja-small"
        else bundle(name, "float32")
    )
    with Model.load(folder) as model:
        decoder = model.decoder
        ids = np.random.RandomState(1).randint(0, decoder.vocab_size, 170).tolist()
        expected = whole(decoder, ids)
        for sizes in ((1,), (2,), (3, 1, 7), (127, 1), (128,), (1, 169), (33, 64, 5)):
            assert np.abs(in_chunks(decoder, ids, sizes) - expected).max() <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "limit"), [("int8", 0.0003), ("int4", 0.006)])
def test_quantized_is_close_to_float32(
    ja_small: Bundles, novel: str, precision: str, limit: float
) -> None:
    logits = []
    for folder in (ja_small("float32"), ja_small(precision)):
        with Model.load(folder) as model:
            ids = model.tokenizer.encode(novel)
            logits.append(score_windows(model, ids))
    assert len(logits[0]) > 3000
    assert 1e-6 < mean_kl(*logits) <= limit


def test_the_folded_bias_undoes_the_shift_of_activations(
    bundle: Bundles, checkpoint: Callable[[str], Path]
) -> None:
    stored = ir.load(bundle("head-8") / "model.onnx").graph.initializers
    opened = open_checkpoint(checkpoint("head-8"))
    tensors, floor = opened.tensors, opened.network.activation_floor or 0

    def get(part: str) -> Array:
        value = stored[f"h.1.down.{part}"].const_value
        assert value is not None
        return np.asarray(value.numpy(), np.float32)

    sums = sum((get(f"weight_{i}") * get(f"scale_{i}")).sum(axis=0) for i in range(4))
    expected = tensors["h.1.down.bias"].read() - floor * sums
    np.testing.assert_allclose(get("folded_bias"), expected, atol=1e-4)


def test_no_activation_is_below_the_floor(checkpoint: Callable[[str], Path]) -> None:
    floor = open_checkpoint(checkpoint("head-8")).network.activation_floor or 0
    x = np.linspace(-10, 10, 100_001)
    tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    erf = 0.5 * x * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))
    for values in (tanh, erf):
        assert -floor < values.min() < -floor + 2e-4


def test_int8_maps_a_row_of_zeros_to_zeros(
    bundle: Bundles, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """The row's peak is 0: 0 / 0 is rounded to some integer and then multiplied by 0."""
    changed = dropped("h.1.norm_1.weight", "h.1.norm_1.bias")(open_checkpoint(checkpoint("head-8")))
    architecture, logits = read_manifest(bundle("head-8", "float32")).architecture, []
    for precision in PRECISIONS[:2]:
        path = tmp_path / f"{precision}.onnx"
        weights = CheckpointWeights(changed.network, changed.tensors, precision)
        ir.save(build_graph(changed.network, weights), path)
        decoder = IssunDecoder(open_session(path), architecture)
        logits.append(whole(decoder, list(range(40))))
    assert np.isfinite(logits[1]).all()
    assert mean_kl(*logits) <= 0.005


@pytest.mark.parametrize("precision", PRECISIONS)
def test_after_the_last_attention_only_selected_rows_are_computed(
    bundle: Bundles, precision: str
) -> None:
    graph = ir.load(bundle("head-8", precision) / "model.onnx").graph
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"][-1]
    (merged,) = [use.node for use in attention.outputs[0].uses()]
    (asked,) = [use.node for use in merged.outputs[0].uses()]
    assert (merged.op_type, asked.op_type) == ("Flatten", "Gather")
    assert asked.inputs[1] is graph.inputs[[i.name for i in graph.inputs].index("logit_rows")]
    with Model.load(bundle("head-8", precision)) as model:
        decoder = model.decoder
        every = whole(decoder, range(10, 30))
        some = decoder.forward(decoder.new_cache(), [range(10, 30)], [17, 3])
        last = decoder.prefill(decoder.new_cache(), range(10, 30))
        none = decoder.forward(decoder.new_cache(), [range(10, 30)], [])
    tolerance = SAME if precision == "int8" else TOLERANCE
    assert np.abs(some - every[[17, 3]]).max() <= tolerance
    alone = (
        0.1 if precision == "int4" else tolerance
    )  # its kernel for a single row rounds differently
    assert np.abs(last - every[-1]).max() <= alone
    assert none.shape == (0, every.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
def test_int8_rows_do_not_depend_on_the_rest_of_the_batch(
    ja_small: Bundles, novel: str, kv_cache: str
) -> None:
    with Model.load(ja_small("int8", kv_cache=kv_cache)) as model:
        decoder = model.decoder
        ids = model.tokenizer.encode(novel)[:300]
        expected = whole(decoder, ids)
        for sizes in ((2,), (128, 44), (7, 3, 30), (299 - 2, 3)):
            assert np.abs(in_chunks(decoder, ids, sizes) - expected).max() <= SAME
        steps = in_chunks(decoder, ids, (1,))
        assert_slots_agree(decoder, ids, [(5, 2, 9), (3, 8, 2), (2, 2, 2)], expected)
        assert_slots_agree(decoder, ids, [(1, 1, 1)] * 20, steps)


def assert_slots_agree(
    decoder: Decoder, ids: Sequence[int], chunks: Sequence[Sequence[int]], expected: Logits
) -> None:
    """Read `ids` in three slots at once, in chunks of the given sizes per slot."""
    cache = decoder.new_cache(3)
    for sizes in chunks:
        past, longest = [len(held) for held in cache.ids], max(sizes)
        rows = [slot * longest + i for slot, size in enumerate(sizes) for i in range(size)]
        parts = [ids[p : p + size] for p, size in zip(past, sizes, strict=True)]
        logits = decoder.forward(cache, parts, rows)
        wanted = [p + i for p, size in zip(past, sizes, strict=True) for i in range(size)]
        assert np.abs(logits - expected[wanted]).max() <= SAME


@pytest.mark.slow
def test_one_row_steps_with_int8_kv_agree_with_prefill(ja_small: Bundles, novel: str) -> None:
    with Model.load(ja_small("int8", kv_cache="int8")) as model:
        ids = model.tokenizer.encode(novel)[:NUM_TOKENS]
        steps = in_chunks(model.decoder, ids, (1,))
        assert np.abs(steps - whole(model.decoder, ids)).max() <= SAME


@pytest.mark.slow
def test_one_row_steps_with_float32_kv_are_close_to_prefill(ja_small: Bundles, novel: str) -> None:
    with Model.load(ja_small("int8")) as model:
        ids = model.tokenizer.encode(novel)[:NUM_TOKENS]
        steps, expected = in_chunks(model.decoder, ids, (1,)), whole(model.decoder, ids)
        assert mean_kl(expected, steps) <= 0.0003
        assert changed_argmax(expected, steps) <= 0.02
