"""Beam search on the slots of a KV cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from issun.runtime import (
    BeamParams,
    BusyError,
    Completion,
    ContextError,
    Conversation,
    IssunError,
    Model,
    OutOfMemoryError,
    ParameterError,
    SamplingError,
    SamplingParams,
)
from issun.runtime.decoding.beam_search import assign_slots
from issun.runtime.decoding.beams import Beam, BeamSearch
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.decoding.sampling import Sampler
from issun.runtime.defaults import make_beam_params
from tests.runtime.decoders import ScriptedDecoder, saying

EOS = 3
Load = Callable[..., Model]
PROMPT = [2, 17, 93, 120, 41, 8, 77]


@pytest.fixture(scope="module")
def load(bundle: Callable[..., Path]) -> Load:
    """`load(precision, kv_cache)`: the tiny model with 512 ids and a context of 256."""

    @cache
    def make(precision: str = "float32", kv_cache: str = "float32") -> Model:
        return Model.load(bundle("unscaled", precision, kv_cache=kv_cache), threads=1)

    return make


def searched_without_a_cache(
    model: Model, prompt: list[int], params: BeamParams
) -> list[tuple[tuple[int, ...], float]]:
    """Return the finished answers if every step computes each beam anew, and alone."""
    sampler = Sampler(params, model._vocabulary, np.random.default_rng())
    search = BeamSearch(params, limit=params.max_new_tokens, ends=model._vocabulary.ends)
    while True:
        rows = [logits_after(model, prompt, beam.ids) for beam in search.running]
        search.advance(
            [
                sampler.log_probabilities(row, prompt, beam.ids)
                for row, beam in zip(rows, search.running, strict=True)
            ]
        )
        if search.done:
            return [(beam.ids, beam.score) for beam in search.finished]


def logits_after(model: Model, prompt: list[int], answer: Sequence[int]) -> Vector:
    alone = model.new_cache()
    logits = model.decoder.prefill(alone, prompt)
    for token in answer:
        logits = model.decoder.step(alone, token)
    return logits


SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 5, "early_stopping": "never", "length_penalty": 2, "logit_bias": {EOS: 3.0}},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    {"num_beams": 3, "min_new_tokens": 5, "logit_bias": {EOS: 5.0}, "early_stopping": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize(
    ("precision", "kv_cache"), [("float32", "float32"), ("int8", "float32"), ("int8", "int8")]
)
def test_slots_hold_what_their_beams_have_read(
    load: Load, precision: str, kv_cache: str, settings: dict[str, Any]
) -> None:
    model = load(precision, kv_cache)
    params = BeamParams(max_new_tokens=12, num_return_sequences=settings["num_beams"], **settings)
    expected = searched_without_a_cache(model, PROMPT, params)
    found = model.beam_search(PROMPT, params)
    assert [c.ids for c in found] == [[i for i in ids if i != EOS] for ids, _ in expected]
    assert [c.score for c in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert {c.finish_reason for c in found} <= {"stop", "length"}
    for completion, (ids, _) in zip(found, expected, strict=True):
        assert completion.text == text_of(model, completion)
        assert completion.timings.new_tokens == len(ids)
        assert completion.timings.prompt_tokens == len(PROMPT)


def text_of(model: Model, completion: Completion) -> str:
    return model.tokenizer.decode(completion.ids).replace(r"\n", "\n").removesuffix("\n")


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_one_beam_is_greedy_decoding(load: Load, precision: str) -> None:
    model = load(precision)
    for seed in range(5):
        prompt = np.random.default_rng(seed).integers(5, 512, 9 + 40 * seed).tolist()
        shared = {"max_new_tokens": 12, "logit_bias": {EOS: 4.0 * (seed % 2)}}
        (found,) = model.beam_search(prompt, BeamParams(num_beams=1, **shared))
        greedy = model.generate(prompt, SamplingParams(temperature=0, lookup=False, **shared))
        assert (found.text, found.ids) == (greedy.text, greedy.ids)
        assert found.finish_reason == greedy.finish_reason


def test_more_beams_find_no_less_likely_answers(load: Load) -> None:
    fields = {"max_new_tokens": 8, "length_penalty": 0, "banned_ids": (1, EOS)}
    scores = [
        load().beam_search(PROMPT, BeamParams(num_beams=n, **fields))[0].score for n in (1, 8, 64)
    ]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_the_prompt_is_computed_once_and_only_differences_are_copied(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls, copies = load(), [], []
    forward, copy = model.decoder.forward, KVCache.copy

    def note(cache: KVCache, chunks: Sequence[Sequence[int]], rows: Sequence[int]) -> Any:
        calls.append([len(chunk) for chunk in chunks])
        return forward(cache, chunks, rows)

    def note_copy(cache: KVCache, *args: Any, start: int) -> None:
        copies.append((start, len(cache.ids[args[1]])))
        copy(cache, *args, start=start)

    monkeypatch.setattr(model.decoder, "forward", note)
    monkeypatch.setattr(KVCache, "copy", note_copy)
    model.beam_search(PROMPT, BeamParams(num_beams=3, max_new_tokens=6, banned_ids=(1, EOS)))
    assert calls == [[7], *[[1, 1, 1]] * 5]
    assert copies[:2] == [(0, 7), (0, 7)]  # the prompt, to the two other beams
    assert all(start >= 7 and held - start <= 5 for start, held in copies[2:])


class Slots:
    """A KV cache of which only the ids are known; records what is copied."""

    def __init__(self, *ids: list[int]) -> None:
        self.ids, self.copies = list(ids), list[tuple[int, int, int]]()

    def copy(self, source: Slots, parent: int, slot: int, *, start: int) -> None:
        self.copies.append((parent, slot, start))


@pytest.mark.parametrize(
    ("parents", "slots", "copies"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], []),
        ([3, 0, 2, 1], [3, 0, 2, 1], []),  # rows are reordered, not keys and values
        ([2, 2, 0, 3], [2, 1, 0, 3], [(2, 1, 2)]),
        ([1, 1, 1, 1], [1, 2, 0, 3], [(1, 2, 2), (1, 0, 1), (1, 3, 0)]),
        ([3, 3], [0, 1], [(3, 0, 0), (3, 1, 0)]),  # fewer beams than slots
        ([0], [0], []),
    ],
)
def test_a_beam_takes_the_slot_that_needs_the_least_copying(
    parents: list[int], slots: list[int], copies: list[tuple[int, int, int]]
) -> None:
    held: Any = Slots([7, 1, 1], [7, 2, 1], [7, 2, 2], [8, 2, 1])
    placed = assign_slots(held, [Beam((n,), -n, slot) for n, slot in enumerate(parents)])
    assert [beam.slot for beam in placed] == slots
    assert [beam.ids for beam in placed] == [(n,) for n in range(len(parents))]
    assert held.copies == copies


# --- ends and texts ---


def test_a_stop_string_ends_answers_before_it(load: Load) -> None:
    model = load()
    plain = BeamParams(num_beams=4, num_return_sequences=4, max_new_tokens=10)
    stop = next(c for c in model.beam_search(PROMPT, plain)[0].text[3:] if c.strip())
    found = model.beam_search(PROMPT, replace(plain, stop=(stop,)))
    assert {c.finish_reason for c in found} >= {"stop"}
    for completion in found:
        assert stop not in completion.text
        assert (stop in text_of(model, completion)) == (completion.finish_reason == "stop")


def test_an_answer_ends_with_the_context(load: Load) -> None:
    prompt = np.random.default_rng(1).integers(5, 512, 250).tolist()
    found = load().beam_search(prompt, BeamParams(num_beams=3, banned_ids=(1, EOS)))
    assert [(len(c.ids), c.finish_reason) for c in found] == [(6, "length")]


def test_the_bundle_has_defaults_for_bans_and_lengths(load: Load) -> None:
    model = load()
    manifest = msgspec.structs.replace(
        model.manifest,
        sampling={"temperature": 0.7, "no_repeat_ngram_size": 2, "min_new_tokens": 9},
    )
    params = make_beam_params(manifest, num_beams=2, max_new_tokens=4)
    assert params == BeamParams(
        num_beams=2, max_new_tokens=4, min_new_tokens=4, no_repeat_ngram_size=2
    )
    with pytest.raises(ParameterError, match="does not support top_k"):
        make_beam_params(manifest, top_k=3)
    assert len(model.beam_search(PROMPT)) == 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("prompt", "params", "error", "message"),
    [
        ([5] * 256, {}, ContextError, "prompt has 256 tokens, which leaves no room"),
        ([], {}, ParameterError, "The prompt is empty."),
        ([512], {}, ParameterError, "The id 512 is out of range"),
        ([5], {"banned_ids": (999,)}, ParameterError, "contains the id 999"),
        ([5], {"banned_ids": tuple(range(512))}, SamplingError, "all are banned"),
        (
            [5],
            {"processors": (lambda ids, logits: logits * np.float32("nan"),)},
            SamplingError,
            "not numbers",
        ),
    ],
)
def test_invalid_arguments_are_reported_and_the_model_stays_usable(
    load: Load, prompt: list[int], params: dict[str, Any], error: type[IssunError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load().beam_search(prompt, BeamParams(**params))
    load().check_free()


def test_beams_that_do_not_fit_into_memory_are_refused(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    beam = model.decoder.slot_bytes * 27 // (256 + 128)
    monkeypatch.setattr(
        "issun.runtime.decoding.beam_search.memory_left", lambda: 3 * beam + beam // 2
    )
    with pytest.raises(OutOfMemoryError) as caught:
        model.beam_search(PROMPT, BeamParams(num_beams=4, max_new_tokens=20))
    assert str(caught.value) == (
        "num_beams is 4, but 27 tokens in each beam leave memory for 3: use fewer beams or lower "
        "max_new_tokens."
    )
    assert model.beam_search(PROMPT, BeamParams(num_beams=3, max_new_tokens=20))


def test_streams_and_batches_refuse_beams(load: Load) -> None:
    model, params = load(), BeamParams()
    for call in (
        lambda: model.stream(PROMPT, params),
        lambda: model.generate(PROMPT, params),
        lambda: model.generate_many([PROMPT], params),
        lambda: model.sample_n(PROMPT, params),
        lambda: Conversation(model).reply("山は?", params),
    ):
        with pytest.raises(ParameterError, match="cannot be streamed: call beam_search"):
            call()
        model.check_free()


def test_parameters_of_samples_are_refused(load: Load) -> None:
    with pytest.raises(ParameterError, match="beam_search takes BeamParams"):
        load().beam_search(PROMPT, SamplingParams(temperature=0))  # type: ignore[arg-type]
    load().check_free()


def test_one_caller_at_a_time(load: Load) -> None:
    stream = load().stream(PROMPT)
    with pytest.raises(BusyError):
        load().beam_search(PROMPT)
    stream.close()


def test_a_graph_without_slots_is_refused(load: Load) -> None:
    decoder = ScriptedDecoder(saying(7, EOS, after=2), n_positions=256, vocab_size=512)
    model = Model(decoder, load().tokenizer, load().manifest)
    with pytest.raises(ParameterError, match="export the checkpoint without --via optimum"):
        model.beam_search([5, 6])


def test_an_interrupt_frees_the_beams_and_leaves_the_model_usable(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, params = load(), BeamParams(num_beams=3, max_new_tokens=6, banned_ids=(1, EOS))
    expected = model.beam_search(PROMPT, params)[0].ids
    forward, caches = model.decoder.forward, list[KVCache]()

    for steps in range(1, 6):
        left = SimpleNamespace(count=steps)

        def run(cache: KVCache, *args: Any, left: SimpleNamespace = left) -> Any:
            caches.append(cache)
            if not left.count:
                raise KeyboardInterrupt
            left.count -= 1
            return forward(cache, *args)

        monkeypatch.setattr(model.decoder, "forward", run)
        with pytest.raises(KeyboardInterrupt):
            model.beam_search(PROMPT, params)
        monkeypatch.setattr(model.decoder, "forward", forward)
        assert caches[-1].ids == []  # closed
        assert model.beam_search(PROMPT, params)[0].ids == expected
