"""Random checkpoints of every family and flag, compared with transformers in issun's runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from issun.benchmarks.divergence import mean_kl
from issun.export.checkpoint import Checkpoint, limit_context, open_checkpoint
from issun.export.graph import KVScales, build_graph
from issun.export.kinds import Uniform
from issun.export.lazy import CheckpointWeights
from issun.export.network import ACTIVATIONS, FULL, Network
from issun.export.weights import Array, Tensor
from issun.runtime.decoding.decoder import IssunDecoder, Logits
from issun.runtime.weights.session import open_session
from tests.parity.checkpoints import RENAMED, VARIANTS, make, rename_rotary_fields, save

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
SAME = 1e-5
SURE_GAP = 2e-4  # below this gap the two likeliest tokens may swap places
NUM_IDS, NUM_GREEDY = 200, 64
NAMES = [*VARIANTS, *RENAMED]


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint, random ids and the logits that transformers computes for them."""

    reference: Any
    checkpoint: Checkpoint
    decoder: IssunDecoder
    ids: list[int]
    logits: Array


@pytest.fixture(scope="module")
def case(
    ref: ModuleType, spiece: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Case]:
    """`case(name)`: a variant, exported to float32."""

    @cache
    def find(name: str) -> Case:
        folder = tmp_path_factory.mktemp("families") / name
        reference = make(RENAMED.get(name, name))
        save(reference, folder, spiece)
        if name in RENAMED:
            rename_rotary_fields(folder)
        checkpoint = open_checkpoint(folder)
        ids = np.random.RandomState(1).randint(0, 512, NUM_IDS).tolist()
        logits = ref.logits_of(reference, ids)
        return Case(reference, checkpoint, decoder_of(checkpoint, folder), ids, logits)

    return find


def decoder_of(
    checkpoint: Checkpoint,
    folder: Path,
    precision: Uniform = "float32",
    kv_scales: KVScales | None = None,
    edit: Callable[[ir.Model], None] = lambda model: None,
) -> IssunDecoder:
    """The decoder of a checkpoint; `edit` changes its graph."""
    weights = CheckpointWeights(checkpoint.network, checkpoint.tensors, precision)
    graph = build_graph(checkpoint.network, weights, kv_scales)
    edit(graph)
    ir.save(graph, folder / "model.onnx")
    return IssunDecoder(open_session(folder / "model.onnx"), checkpoint.network.architecture())


def whole(decoder: IssunDecoder, ids: Sequence[int]) -> Logits:
    """Logits of every position, as a prompt is read."""
    return np.concatenate(list(decoder.score(decoder.new_cache(), ids)))


def in_chunks(decoder: IssunDecoder, ids: Sequence[int], sizes: Sequence[int]) -> Logits:
    """Logits of every position, computed in chunks whose sizes cycle through `sizes`."""
    held, found, start = decoder.new_cache(), [], 0
    while start < len(ids):
        chunk = ids[start : start + sizes[len(found) % len(sizes)]]
        found.append(decoder.forward(held, [chunk], range(len(chunk))))
        start += len(chunk)
    return np.concatenate(found)


def ragged(decoder: IssunDecoder, ids: Sequence[int]) -> Iterator[tuple[slice, Logits]]:
    """Positions and their logits, from three sequences of different lengths in one batch."""
    held = decoder.new_cache(3)
    for slot, past in enumerate((2, 40, 130)):
        decoder.forward(held, [ids[:past]], [], first=slot)
    for sizes in ((5, 1, 8), (1, 1, 1), (30, 7, 2), (1, 2, 1)):
        starts, longest = [len(tokens) for tokens in held.ids], max(sizes)
        parts = [ids[a : a + size] for a, size in zip(starts, sizes, strict=True)]
        rows = [slot * longest + i for slot, size in enumerate(sizes) for i in range(size)]
        logits = decoder.forward(held, parts, rows)
        for start, size in zip(starts, sizes, strict=True):
            yield slice(start, start + size), logits[:size]
            logits = logits[size:]
    held.rewind(60, slot=2)  # a shorter past in the buffer of a longer one
    yield slice(60, 64), decoder.forward(held, [ids[60:64]], range(4), first=2)


# Against transformers


@pytest.mark.parametrize("name", NAMES)
def test_float32_logits_equal_those_of_transformers(case: Callable[[str], Case], name: str) -> None:
    it = case(name)
    assert it.logits.std() >= 2
    assert np.abs(whole(it.decoder, it.ids) - it.logits).max() <= TOLERANCE
    for sizes in ((1,), (3, 1, 50, 2, 17, 1, 1)):
        assert np.abs(in_chunks(it.decoder, it.ids, sizes) - it.logits).max() <= TOLERANCE
    for positions, logits in ragged(it.decoder, it.ids):
        assert np.abs(logits - it.logits[positions]).max() <= TOLERANCE


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_equal_those_of_transformers(
    case: Callable[[str], Case], ref: ModuleType, name: str
) -> None:
    it = case(name)
    tokens, gaps = ref.greedy(it.reference, it.ids[:50], NUM_GREEDY)
    held = it.decoder.new_cache()
    logits = it.decoder.prefill(held, it.ids[:50])
    for token, gap in zip(tokens, gaps, strict=True):
        assert int(logits.argmax()) == token or gap < SURE_GAP
        logits = it.decoder.step(held, token)


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_a_shorter_context_has_the_same_logits(
    case: Callable[[str], Case], tmp_path: Path, name: str
) -> None:
    it = case(name)
    decoder = decoder_of(limit_context(it.checkpoint, 64), tmp_path)
    assert np.abs(whole(decoder, it.ids[:64]) - it.logits[:64]).max() <= TOLERANCE
    # Padding of the first sequence lies behind the last position.
    held = decoder.new_cache(2)
    for slot, past in enumerate((62, 10)):
        decoder.forward(held, [it.ids[:past]], [], first=slot)
    logits = decoder.forward(held, [it.ids[62:64], it.ids[10:40]], [0, 1, *range(30, 60)])
    expected = np.concatenate([it.logits[62:64], it.logits[10:40]])
    assert np.abs(logits - expected).max() <= TOLERANCE


# Against itself


def kv_scales(it: Case) -> KVScales:
    """Scales for an int8 KV cache, from what the float32 cache holds."""
    held = it.decoder.new_cache()
    list(it.decoder.score(held, it.ids))
    peaks = np.abs(held.buffers[:, 0, :, : len(it.ids)]).max(axis=2)
    scales = np.maximum(peaks * 1.5 / 127, 1e-8).astype(np.float32)
    return list(zip(scales[::2], scales[1::2], strict=True))


# precision, int8 KV cache, sizes of chunks, the largest KL divergence from transformers. Only where
# keys and values are int8 does attention round a single row as it does several. The kernel of
# int4 linears takes rows in pairs, and rounds the last of an odd number differently.
CUTS: list[tuple[Uniform, bool, Sequence[int], float]] = [
    ("float32", True, (1,), 0.06),
    ("int8", False, (7, 3, 30, 2), 0.12),
    ("int8", True, (1,), 0.15),
    ("int4", False, (20, 30, 2), 3.0),
]


@pytest.mark.sampled
@pytest.mark.parametrize("name", VARIANTS)
def test_quantized_logits_do_not_depend_on_how_a_prompt_is_cut(
    case: Callable[[str], Case], tmp_path: Path, name: str
) -> None:
    it = case(name)
    scales = kv_scales(it)
    for precision, quantizes_kv, sizes, limit in CUTS:
        decoder = decoder_of(it.checkpoint, tmp_path, precision, scales if quantizes_kv else None)
        expected = whole(decoder, it.ids)
        assert 1e-4 < mean_kl(it.logits, expected) <= limit
        assert np.abs(in_chunks(decoder, it.ids, sizes) - expected).max() <= SAME
        if quantizes_kv:
            for positions, logits in ragged(decoder, it.ids):
                assert np.abs(logits - expected[positions]).max() <= SAME
        elif precision == "int4":
            assert mean_kl(expected, in_chunks(decoder, it.ids, (7, 3, 1))) <= 0.005


# Wrong graphs are detected


class Changed(Tensor):
    """A tensor with its values changed."""

    def __init__(self, source: Tensor, change: Callable[[Array], Array]) -> None:
        super().__init__(source.name, source.shape, source.dtype)
        self._source, self._change = source, change

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        return self._change(self._source.read())[start:stop]


Mutation = Callable[[Checkpoint], Checkpoint | None]  # None where it changes nothing


def network(**changes: Callable[[Network], object]) -> Mutation:
    """Set fields of the network, each computed from it; None leaves the checkpoint as it is."""

    def mutate(it: Checkpoint) -> Checkpoint | None:
        values = {name: compute(it.network) for name, compute in changes.items()}
        if all(value is None or value == getattr(it.network, n) for n, value in values.items()):
            return None
        return replace(it, network=replace(it.network, **values))  # type: ignore[arg-type]

    return mutate


def rotary(**changes: Callable[[Network], object]) -> Mutation:
    """Set fields of the network's rotary positions."""

    def changed(it: Network) -> object:
        if it.rotary is None:
            return None
        values = {name: compute(it) for name, compute in changes.items()}
        return replace(it.rotary, **values)  # type: ignore[arg-type]

    return network(rotary=changed)


def tensor(name: str, change: Callable[[Array, Network], Array]) -> Mutation:
    """Change the values of one canonical tensor."""

    def mutate(it: Checkpoint) -> Checkpoint | None:
        if name not in it.tensors:
            return None
        changed = Changed(it.tensors[name], lambda array: change(array, it.network))
        return replace(it, tensors=it.tensors | {name: changed})

    return mutate


def swapped_kv_heads(array: Array, it: Network) -> Array:
    """The keys of two heads swapped: with one head of keys, nothing changes."""
    start, width = it.n_head * it.kv_head_dim, it.kv_head_dim
    order = np.arange(array.shape[-1])
    order[start : start + 2 * width] = np.roll(order[start : start + 2 * width], width)
    return array[..., order]


def other_activation(it: Network) -> str:
    return "gelu_new" if ACTIVATIONS[it.activation] == "Gelu" else "gelu"


def without_yarn_factor(it: Network) -> object:
    scaling = dict(it.rotary.scaling) if it.rotary else {}
    return (
        scaling | {"attention_factor": 1.0} if it.rotary and it.rotary.kind == "yarn" else scaling
    )


BIASES = ("qkv", "out", "gate", "up", "down", "norm_1", "norm_2")
MUTATIONS: dict[str, Mutation] = {
    "another activation": network(activation=other_activation),
    "epsilon x 10": network(epsilon=lambda n: n.epsilon * (10 if n.epsilon == 1e-3 else 1)),
    "parallel and sequential swapped": network(
        parallel=lambda n: n.parallel != (n.family == "gpt_neox")
    ),
    "no norms of heads": network(head_norms=lambda n: False),
    "window one wider": network(windows=lambda n: tuple(w + (w != FULL) for w in n.windows)),
    "window one narrower": network(windows=lambda n: tuple(w - (w != FULL) for w in n.windows)),
    "no window": network(windows=lambda n: ()),
    "local layers shifted": network(windows=lambda n: n.windows[1:] + n.windows[:1]),
    "scale of the padded head": network(
        scales=lambda n: tuple(s * (n.head_dim / n.kv_head_dim) ** 0.5 for s in n.scales)
    ),
    "scale of the first layer": network(scales=lambda n: n.scales[:1] * n.n_layer),
    "theta 1 % larger": rotary(theta=lambda n: n.rotary and n.rotary.theta * 1.01),
    "two channels rotate less": rotary(dim=lambda n: n.rotary and n.rotary.dim - 2),
    "no scaling of frequencies": rotary(
        scaling=lambda n: n.rotary and ({} if n.rotary.kind != "dynamic" else n.rotary.scaling)
    ),
    "yarn without its factor": rotary(scaling=without_yarn_factor),
    "heads of keys swapped": tensor("h.1.qkv.weight", swapped_kv_heads),
    **{f"no {n} bias": tensor(f"h.1.{n}.bias", lambda a, _: a * 0) for n in BIASES},
    "no norm bias": tensor("norm.bias", lambda a, _: a * 0),
    "no gain of the last norm": tensor("norm.weight", lambda a, _: a * 0 + 1),
    "gate and up swapped": lambda it: swapped(it, "h.1.gate.weight", "h.1.up.weight"),
    "norms of heads swapped": lambda it: swapped(it, "h.1.q_norm.weight", "h.1.k_norm.weight"),
}


def swapped(it: Checkpoint, one: str, other: str) -> Checkpoint | None:
    if one not in it.tensors:
        return None
    exchanged = {one: it.tensors[other], other: it.tensors[one]}
    return replace(it, tensors=it.tensors | exchanged)


def neighbours_rotate(model: ir.Model) -> None:
    """Rotate channel 2j with 2j + 1, instead of j with j + half a head."""
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["rotary_interleaved"] = ir.AttrInt64("rotary_interleaved", 1)


@pytest.mark.sampled
@pytest.mark.parametrize("title", MUTATIONS)
def test_mutation_fails_the_tolerance(
    case: Callable[[str], Case], tmp_path: Path, title: str
) -> None:
    differences = {}
    for name in VARIANTS:
        it = case(name)
        mutated = MUTATIONS[title](it.checkpoint)
        if mutated is not None:
            decoder = decoder_of(mutated, tmp_path)
            differences[name] = np.abs(whole(decoder, it.ids) - it.logits).max()
    assert differences
    assert min(differences.values()) > 10 * TOLERANCE, differences


def test_mutation_of_pairs_fails_the_tolerance(case: Callable[[str], Case], tmp_path: Path) -> None:
    for name in VARIANTS:
        it = case(name)
        if it.checkpoint.network.rotary is not None:
            decoder = decoder_of(it.checkpoint, tmp_path, edit=neighbours_rotate)
            assert np.abs(whole(decoder, it.ids) - it.logits).max() > 10 * TOLERANCE
