"""Batched generation: each answer is the one that its prompt gets alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issun.runtime import (
    BusyError,
    Completion,
    ContextError,
    IssunError,
    Model,
    ParameterError,
    SamplingParams,
)
from issun.runtime.decoding.decoder import PREFILL_CHUNK, IssunDecoder
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.errors import OutOfMemoryError
from issun.runtime.manifest import read_manifest
from tests.runtime.decoders import ScriptedDecoder, saying

EOS = 3
Load = Callable[..., Model]


@pytest.fixture(scope="module")
def load(bundle: Callable[..., Path]) -> Load:
    """`load(precision, kv_cache)`: the tiny model with 512 ids and a context of 256."""

    @cache
    def make(precision: str = "int8", kv_cache: str = "float32") -> Model:
        return Model.load(bundle("unscaled", precision, kv_cache=kv_cache), threads=1)

    return make


def ids_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(5, 512, count).tolist()


def said(completion: Completion) -> tuple[Any, ...]:
    """Return all of an answer but its timings."""
    logprobs = [[entry.drawn, entry.top] for entry in completion.logprobs]
    return completion.text, completion.ids, completion.finish_reason, logprobs


def expected(completion: Completion) -> tuple[Any, ...]:
    """Compare as `said`, with the tolerance of one-row kernels for log-probabilities."""
    *rest, logprobs = said(completion)
    near = [
        [pytest.approx(drawn, abs=1e-4), pytest.approx(top, abs=1e-4)] for drawn, top in logprobs
    ]
    return *rest, near


# --- the rows of a batch ---


@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_row_does_not_depend_on_the_other_rows(load: Load, precision: str, kv_cache: str) -> None:
    decoder = load(precision, kv_cache).decoder
    assert isinstance(decoder, IssunDecoder)
    assert decoder.kv_cache == kv_cache
    batch = decoder.new_cache(slots=5, positions=220)
    alone = [decoder.new_cache() for _ in range(5)]
    for slot, (one, length) in enumerate(zip(alone, (200, 1, 129, 2, 77), strict=True)):
        decoder.prefill(one, ids_of(length, seed=slot))
        batch.copy(one, 0, slot)
    for step, size in enumerate((5, 4, 1, 3, 2, 1)):
        tokens = ids_of(size, seed=step + 10)
        rows = decoder.forward(batch, [[token] for token in tokens], range(size))
        for slot, token in enumerate(tokens):
            # Exact on some CPUs; on others, int8 kernels round a single row differently.
            single = decoder.step(alone[slot], token)
            limit = 0 if precision == "float32" else 5e-6
            assert np.allclose(rows[slot], single, rtol=0, atol=limit)
    assert batch.ids == [one.ids[0] for one in alone]


def test_a_sequence_that_moves_continues_and_frees_its_old_memory(load: Load) -> None:
    decoder = load().decoder
    assert isinstance(decoder, IssunDecoder)
    cache, alone = decoder.new_cache(slots=3), decoder.new_cache()
    decoder.prefill(alone, ids_of(200, seed=1))
    cache.copy(alone, 0, 2)
    cache.move(2, 0)
    assert [len(held) for held in cache.ids] == [200, 0, 0]
    assert cache.touched == [200, 0, 0]
    assert cache.nbytes == 200 * alone.nbytes / alone.touched[0]
    if sys.platform == "linux":  # pages that no other slot shares
        assert np.count_nonzero(cache.buffers[:, 2]) < cache.buffers[:, 0, :, :200].size / 4
    (row,) = decoder.forward(cache, [[5]], [0])
    assert np.allclose(row, decoder.step(alone, 5), rtol=0, atol=5e-6)


@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
def test_sequences_that_change_places_continue(load: Load, kv_cache: str) -> None:
    decoder = load("int8", kv_cache).decoder
    assert isinstance(decoder, IssunDecoder)
    cache, alone = decoder.new_cache(slots=2), [decoder.new_cache() for _ in range(2)]
    for slot, (one, length) in enumerate(zip(alone, (200, 30), strict=True)):
        decoder.prefill(one, ids_of(length, seed=slot))
        cache.copy(one, 0, slot)
    cache.swap(0, 1)
    assert [len(held) for held in cache.ids] == [30, 200]
    assert cache.touched == [200, 200]
    rows = decoder.forward(cache, [[5], [6]], [0, 1])
    for row, one, token in zip(rows, reversed(alone), (5, 6), strict=True):
        assert np.allclose(row, decoder.step(one, token), rtol=0, atol=5e-6)


def test_without_memory_to_change_places_nothing_changes(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = load().decoder
    assert isinstance(decoder, IssunDecoder)
    monkeypatch.setattr("issun.runtime.decoding.kv_cache._MIN_RESERVED", 0)
    cache = decoder.new_cache(slots=2)
    decoder.prefill(cache, ids_of(200, seed=1))
    held, before = cache.ids[0], cache.buffers.copy()
    monkeypatch.setattr("issun.runtime.decoding.kv_cache.check_memory", _raise_memory_error)
    with pytest.raises(OutOfMemoryError):
        cache.swap(0, 1)
    assert cache.ids == [held, []]
    assert np.array_equal(cache.buffers, before)


def _raise_memory_error(size: int) -> None:
    raise MemoryError


def test_a_cache_is_no_longer_than_needed(load: Load) -> None:
    decoder = load().decoder
    assert isinstance(decoder, IssunDecoder)
    cache = decoder.new_cache(slots=3, positions=20)
    assert cache.buffers.shape[1:4] == (3, 7, 20 + PREFILL_CHUNK)
    decoder.forward(cache, [[5] * 20, [6] * 19], [])
    with pytest.raises(ContextError, match="21 tokens do not fit into the context of 20"):
        decoder.forward(cache, [[5], [6]], [])


# --- answers ---


@st.composite
def asks(draw: st.DrawFn) -> tuple[list[list[int]], list[SamplingParams]]:
    """Prompts of all lengths, some equal, and parameters that end answers in every way."""
    pool = [ids_of(n, seed=n) for n in draw(st.lists(st.integers(1, 255), min_size=1, max_size=4))]
    prompts = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=7))
    params = st.builds(
        SamplingParams,
        temperature=st.sampled_from([0, 0.7, 1.5]),
        max_new_tokens=st.integers(1, 30),
        seed=st.integers(0, 2**64 - 1),
        top_k=st.sampled_from([0, 3]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        logit_bias=st.sampled_from([{}, {EOS: 30.0}]),
        stop=st.sampled_from([(), ("の",), ("い", "し")]),
        logprobs=st.sampled_from([0, 2]),
        # Attention over a float32 KV cache rounds the rows of a draft differently.
        lookup=st.just(False),
    )
    return prompts, [draw(params) for _ in prompts]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("precision", "kv_cache"), [("int8", "float32"), ("int8", "int8"), ("float32", "float32")]
)
@settings(max_examples=15)
@given(ask=asks(), slots=st.integers(1, 5))
def test_each_answer_is_the_one_that_its_prompt_gets_alone(
    load: Load,
    precision: str,
    kv_cache: str,
    ask: tuple[list[list[int]], list[SamplingParams]],
    slots: int,
) -> None:
    model = load(precision, kv_cache)
    prompts, params = ask
    ended: dict[int, Completion] = {}
    many = model.generate_many(prompts, params, slots=slots, on_complete=ended.__setitem__)
    alone = [model.generate(*one) for one in zip(prompts, params, strict=True)]
    assert list(map(said, many)) == list(map(expected, alone))
    assert [ended[place] for place in range(len(prompts))] == many
    for one, other in zip(many, alone, strict=True):
        assert one.timings.prompt_tokens == other.timings.prompt_tokens
        assert one.timings.new_tokens == other.timings.new_tokens


def test_answers_of_every_kind_were_compared(load: Load) -> None:
    """Check that the test above has seen answers that end in every way."""
    reasons = {
        load()
        .generate(ids_of(n, seed=n), SamplingParams(seed=n, logit_bias={EOS: 4.0}))
        .finish_reason
        for n in range(1, 250, 12)
    }
    assert reasons == {"stop", "length"}


def test_one_slot_in_int4(load: Load) -> None:
    """The 4-bit kernels round a single row differently, so sequences run one at a time."""
    model = load("int4")
    params = [SamplingParams(seed=seed, lookup=False) for seed in range(4)]
    prompts = [ids_of(9), ids_of(9), ids_of(140), ids_of(30)]
    many = model.generate_many(prompts, params, slots=1)
    alone = [model.generate(*one) for one in zip(prompts, params, strict=True)]
    assert list(map(said, many)) == list(map(expected, alone))


@pytest.mark.sampled
@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
def test_a_trained_model(ja_small: Callable[..., Path], kv_cache: str) -> None:
    with Model.load(ja_small("int8", kv_cache="int8"), threads=1, kv_cache=kv_cache) as model:
        texts = ("日本で一番広い湖は?", "猫について書いてください。", "こんにちは!")
        prompts = [model.prompt(text) for text in texts for _ in range(8)]
        # With a float32 cache, one row uses a different kernel from the several of a draft.
        lookup = kv_cache == "int8"
        params = [
            SamplingParams(seed=seed, max_new_tokens=24, lookup=lookup)
            for seed in range(len(prompts))
        ]
        alone = [said(model.generate(*one)) for one in zip(prompts, params, strict=True)]
        assert len({text for text, *_ in alone}) > 10
        for slots in (3, 16):
            assert list(map(said, model.generate_many(prompts, params, slots=slots))) == alone


def test_texts_and_one_set_of_parameters(load: Load) -> None:
    model, params = load(), SamplingParams(seed=5, max_new_tokens=8)
    many = model.generate_many(["日本", "山は"], params)
    assert [c.text for c in many] == [model.generate(t, params).text for t in ("日本", "山は")]
    assert len(model.generate_many(["日本"])) == 1
    assert model.generate_many([]) == []


# --- work and memory ---


@pytest.fixture
def forwards(load: Load, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Record how many tokens each sequence processes in every forward pass."""
    decoder, found = load().decoder, []
    assert isinstance(decoder, IssunDecoder)
    forward = decoder.forward

    def note(cache: KVCache, chunks: Sequence[Sequence[int]], *args: Any, **options: Any) -> Any:
        found.append([len(chunk) for chunk in chunks])
        return forward(cache, chunks, *args, **options)

    monkeypatch.setattr(decoder, "forward", note)
    return found


def test_equal_prompts_are_prefilled_once(load: Load, forwards: list[list[int]]) -> None:
    """Except for the last two tokens: a single row would round differently from several."""
    one, other = ids_of(20), ids_of(30, seed=1)
    many = load().generate_many(
        [one, list(one), one, other, other], SamplingParams(max_new_tokens=5), slots=2
    )
    assert [sizes for sizes in forwards if max(sizes) > 1] == [[20], [2], [2, 30], [2]]
    assert [c.timings.reused_tokens for c in many] == [0, 18, 18, 0, 28]
    assert [c.timings.prompt_tokens for c in many] == [20, 20, 20, 30, 30]


def test_short_prompts_are_prefilled_together(load: Load, forwards: list[list[int]]) -> None:
    """As many as fit, padded to the longest, share a chunk of 128; a long one is alone."""
    prompts = [ids_of(n, seed=n) for n in (30, 32, 31, 20, 25, 200, 1, 40)]
    load().generate_many(prompts, SamplingParams(max_new_tokens=1), slots=8)
    assert forwards == [[30, 32, 31, 20], [25], [128], [72], [1], [40]]


def test_slots_stay_full_and_no_larger_than_needed(
    load: Load, forwards: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, caches = load(), []
    decoder = model.decoder
    assert isinstance(decoder, IssunDecoder)
    new_cache = decoder.new_cache

    def make(slots: int = 1, positions: int | None = None) -> KVCache:
        caches.append((slots, positions))
        return new_cache(slots, positions)

    monkeypatch.setattr(decoder, "new_cache", make)
    prompts = [ids_of(20, seed=seed) for seed in range(5)]
    lengths = (5, 2, 4, 1, 3)
    params = [SamplingParams(max_new_tokens=n, seed=n, banned_ids=(1, EOS)) for n in lengths]
    many = model.generate_many(prompts, params, slots=3)
    assert [c.timings.new_tokens for c in many] == list(lengths)
    # Three are prefilled; the second ends after a step, the fourth with its first token, and the
    # fifth replaces both.
    read = [len(sizes) for sizes in forwards if max(sizes) > 1]
    steps = [len(sizes) for sizes in forwards if max(sizes) == 1]
    assert (read, steps) == ([3, 1, 1], [3, 3, 3, 1])
    assert caches == [(3, 25)]
    caches.clear()
    model.generate_many(prompts[:1], SamplingParams(max_new_tokens=10**6))
    assert caches == [(1, 256)]


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompts": [[5], ids_of(256)]}, ContextError, "prompt has 256 tokens, which leaves no"),
        ({"prompts": [[5], []]}, ParameterError, "The prompt is empty."),
        ({"prompts": [[5], [512]]}, ParameterError, "The id 512 is out of range"),
        ({"prompts": "山"}, ParameterError, "pass a list of texts"),
        ({"params": [SamplingParams()]}, ParameterError, "2 prompts and 1 sampling parameters"),
        ({"params": []}, ParameterError, "2 prompts and 0 sampling parameters"),
        ({"params": SamplingParams(banned_ids=(999,))}, ParameterError, "contains the id 999"),
        ({"slots": 0}, ParameterError, "slots is 0, it must be a whole number of at least 1."),
        ({"slots": 1.5}, ParameterError, "slots is 1.5, it must be a whole number of at least 1."),
    ],
)
def test_invalid_arguments_are_reported_before_any_work(
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[IssunError],
    message: str,
) -> None:
    model = load()
    monkeypatch.setattr(model.decoder, "forward", lambda *_: pytest.fail("the graph ran"))
    with pytest.raises(error, match=message):
        model.generate_many(**{"prompts": [[5], [6]], **options})
    model.check_free()


def test_one_caller_at_a_time(load: Load) -> None:
    model = load()
    stream = model.stream([5, 6])
    with pytest.raises(BusyError):
        model.generate_many([[5]])
    stream.close()

    def call_again(place: int, completion: Completion) -> None:
        model.generate([5])

    with pytest.raises(BusyError):
        model.generate_many([[5], [6]], on_complete=call_again)
    model.check_free()


def test_a_graph_without_slots_answers_one_prompt_after_another(
    bundle: Callable[..., Path],
) -> None:
    manifest = read_manifest(bundle("unscaled"))
    tokenizer = Model.load(bundle("unscaled"), threads=1).tokenizer
    decoder = ScriptedDecoder(saying(7, 8, EOS, after=2), n_positions=256, vocab_size=512)
    model = Model(decoder, tokenizer, manifest)
    many = model.generate_many([[5, 6], [6, 5]], SamplingParams(temperature=0), slots=2)
    assert [c.ids for c in many] == [[7, 8], [7, 8]]
    assert decoder.calls == [[5, 6], [7], [8], [6, 5], [7], [8]]
    stream = model.stream([5, 6])
    with pytest.raises(BusyError):
        model.generate_many([])
    stream.close()
