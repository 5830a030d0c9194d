"""Prompt-lookup decoding: drafts, their balance, and that they do not change answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issun.runtime import Conversation, Model, ParameterError, SamplingParams
from issun.runtime.decoding.generate import Segment
from issun.runtime.decoding.lookup import PromptLookup
from tests.runtime.decoders import Script, ScriptedDecoder, saying
from tests.runtime.test_generate import EOS, run


def test_the_longest_match_is_used() -> None:
    drafts = PromptLookup([1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 0.01)
    assert drafts.draft(2) == [7, 2]  # after 1 2 3, not after the later 2 3
    # The latest of several matches.
    assert PromptLookup([1, 2, 3, 7, 2, 3, 8, 2, 3], 0.01).draft(1) == [8]
    assert PromptLookup([1, 2, 3], 0.01).draft(2) == []
    assert PromptLookup([5, 1, 2, 3, 5], 0.01).draft(2) == []  # a single token is no match
    assert PromptLookup([], 0.01).draft(2) == []


def test_a_draft_may_overlap_its_match() -> None:
    lookup = PromptLookup([4, 4, 4, 4, 4], 0.01)
    lookup.update(2, 2)
    lookup.update(4, 4)
    assert lookup.draft(8) == [4]  # the latest match: one token of its continuation is known


def test_drafts_grow_when_accepted_and_shrink_when_rejected() -> None:
    text = [*range(30), 0, 1]
    lookup = PromptLookup(text, 0.01)
    lengths = []
    for accepted in (2, 4, 8, 15, 15, 6, 0):
        drafted = len(lookup.draft(100))
        lengths.append(drafted)
        lookup.update(drafted, min(accepted, drafted))
    lengths.append(len(lookup.draft(100)))
    assert lengths == [2, 4, 8, 15, 15, 15, 7, 2]
    assert lookup.draft(0) == []
    assert lookup.draft(1) == [2]


def test_drafts_that_do_not_pay_off_stop() -> None:
    lookup = PromptLookup([*range(30), 0, 1], 0.05)
    tries = 0
    while drafted := len(lookup.draft(100)):
        lookup.update(drafted, 0)
        tries += 1
    assert tries == 5  # half a step, two rows at a time
    # Gains may be lost again, but only up to a limit.
    lookup = PromptLookup([*range(30), 0, 1], 0.05)
    for _ in range(50):
        lookup.update(15, 15)
    tries = 0
    while drafted := len(lookup.draft(100)):
        lookup.update(drafted, 0)
        tries += 1
    assert tries == 33  # 15 rows once, then 2 at a time out of 4 - 0.75 steps
    assert PromptLookup([*range(30), 0, 1], 0.6).draft(100) == []  # too expensive from the start


def test_a_long_match_is_followed_to_its_end_when_rows_are_expensive() -> None:
    lookup = PromptLookup([*range(100), 0, 1], 0.3)
    lengths = []
    for _ in range(7):
        drafted = len(lookup.draft(100))
        lengths.append(drafted)
        lookup.update(drafted, drafted)
    assert lengths == [1, 4, 8, 13, 13, 13, 13]  # as far as 4 steps pay for


def answer(
    script: Script, prompt: Sequence[int], row_cost: float | None, **params: Any
) -> tuple[list[Segment], ScriptedDecoder, list[int]]:
    decoder = ScriptedDecoder(script, n_positions=params.pop("n_positions", 64))
    cache = decoder.new_cache()
    found = list(run(decoder, prompt, cache=cache, row_cost=row_cost, **params))
    return found, decoder, cache.ids[0]


def test_quoted_text_needs_few_steps() -> None:
    quoted = [2, 3, 4, 5, 6, 7, 8, 4, 6, 3, EOS]
    prompt = [*quoted[:-1], 9]
    script = saying(*quoted, after=len(prompt))
    alone, steps, held = answer(script, prompt, None, temperature=0)
    ahead, fewer, held_ahead = answer(script, prompt, 0.03, temperature=0)
    assert [s.id for s in ahead] == [s.id for s in alone] == quoted
    assert [s.text for s in ahead] == [s.text for s in alone]
    assert held == held_ahead
    assert len(steps.calls) == 11
    # Two tokens must match; drafts of 2 and 4 are accepted, and one of 8 is not.
    assert [len(call) for call in fewer.calls[1:]] == [1, 3, 5, 9]


@settings(max_examples=200)
@given(
    prompt=st.lists(st.integers(2, 5), min_size=1, max_size=12),
    said=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    temperature=st.sampled_from([0.0, 3.0, 20.0]),
    stop=st.sampled_from([(), ("あい",), ("うST",)]),
    most=st.integers(1, 40),
    n_positions=st.integers(14, 50),
)
def test_the_answer_is_the_same(
    *,
    prompt: list[int],
    said: list[int],
    temperature: float,
    stop: tuple[str, ...],
    most: int,
    n_positions: int,
) -> None:
    script = saying(*said, after=len(prompt))
    options: dict[str, Any] = {
        "temperature": temperature,
        "stop": stop,
        "max_new_tokens": most,
        "n_positions": n_positions,
    }
    alone, _, held = answer(script, prompt, None, **options)
    ahead, decoder, held_ahead = answer(script, prompt, 0.001, **options)
    assert [(s.id, s.text, s.finish_reason) for s in ahead] == [
        (s.id, s.text, s.finish_reason) for s in alone
    ]
    assert held == held_ahead
    assert all(len(call) <= n_positions for call in decoder.calls)


SAMPLERS: dict[str, dict[str, Any]] = {
    "mirostat": {"mirostat": 2, "mirostat_tau": 1, "mirostat_eta": 0.9},
    "xtc": {"xtc_probability": 0.5},
    "dry": {"dry_multiplier": 5.0, "dry_allowed_length": 1},
    "dynamic temperature": {"dynatemp_range": 2.0},
    "top-n-sigma": {"top_n_sigma": 1.5},
}


@settings(max_examples=40)
@given(
    prompt=st.lists(st.integers(2, 5), min_size=4, max_size=12),
    said=st.lists(st.integers(2, 5), min_size=4, max_size=30),
    sampler=st.sampled_from(sorted(SAMPLERS)),
)
def test_the_answer_is_the_same_with_a_sampler_that_has_a_state(
    *, prompt: list[int], said: list[int], sampler: str
) -> None:
    script = saying(*said, after=len(prompt))
    options = {"temperature": 4.0, "max_new_tokens": 25} | SAMPLERS[sampler]
    alone, _, _ = answer(script, prompt, None, **options)
    ahead, _, _ = answer(script, prompt, 0.001, **options)
    assert [s.id for s in ahead] == [s.id for s in alone]


@pytest.mark.parametrize("count", range(1, 12))
def test_an_abandoned_answer_leaves_no_rejected_tokens_in_the_cache(count: int) -> None:
    quoted = [2, 3, 4, 2, 9, 4, 3, 9, 2, 2, 3, 3]
    prompt = [*quoted, 9, 9]
    decoder = ScriptedDecoder(saying(*quoted, after=len(prompt)))
    cache = decoder.new_cache()
    segments = run(decoder, prompt, cache=cache, row_cost=0.001)
    for _ in range(count):
        next(segments)
    segments.close()  # type: ignore[attr-defined]
    held = cache.ids[0]
    assert held == [*prompt, *quoted][: len(held)]
    assert len(prompt) + count - 1 <= len(held) <= len(prompt) + count


def test_lookup_is_true_or_false() -> None:
    with pytest.raises(ParameterError, match="lookup is 1, it must be True or False"):
        SamplingParams(lookup=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_a_real_answer_is_the_same_where_steps_and_prefill_agree(
    ja_small: Callable[..., Path], temperature: float
) -> None:
    """int8 with an int8 KV cache: results for one row and several agree within 1e-5."""
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 2
    drafted = 0
    with Model.load(ja_small("int8", kv_cache="int8"), threads=1) as model:
        for seed in range(6):
            params = SamplingParams(temperature=temperature, max_new_tokens=60, seed=seed)
            prompt = model.prompt("次の文を写してください。", text)
            calls = _count_rows(model)
            ahead = model.generate(prompt, params)
            drafted += sum(rows - 1 for rows in calls)
            alone = model.generate(prompt, SamplingParams(**_changed(params, lookup=False)))
            assert (ahead.ids, ahead.text) == (alone.ids, alone.text)
            assert ahead.finish_reason == alone.finish_reason
    assert drafted > 0


@pytest.mark.parametrize(
    ("precision", "ahead"), [("float32", False), ("int8", True), ("int4", True)]
)
def test_lookup_is_on_by_default_if_more_rows_cost_little(
    ja_small: Callable[..., Path], precision: str, *, ahead: bool
) -> None:
    with Model.load(ja_small(precision), threads=1) as model:
        calls = _count_rows(model)
        prompt = model.prompt("次の文を写してください。", "吾輩は猫である。名前はまだ無い。" * 3)
        params = {"temperature": 0, "min_new_tokens": 60, "max_new_tokens": 60}
        model.generate(prompt, SamplingParams(**params))
        assert (max(calls) > 1) == ahead
        calls.clear()
        model.generate(prompt, SamplingParams(lookup=False, **params))
        assert max(calls) == 1


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_otherwise_each_token_is_nearly_the_likeliest_of_a_replay(
    ja_small: Callable[..., Path], precision: str
) -> None:
    """Kernels for one row round differently from those for several rows, which verify a draft."""
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 2
    with Model.load(ja_small(precision), threads=1) as model:
        model._row_cost = lambda params: 0.04  # type: ignore[method-assign]
        banned = (model.manifest.tokens.unk, model.manifest.tokens.eos)
        params = SamplingParams(temperature=0, max_new_tokens=100, banned_ids=banned)
        prompt = model.prompt("次の文を写してください。", text)
        calls = _count_rows(model)
        ids = model.generate(prompt, params).ids
        assert max(calls) > 2
        logits = model.score([*prompt, *ids])[len(prompt) - 1 : -1]
        logits[:, banned] = -np.inf
        drawn = np.take_along_axis(logits, np.array(ids)[:, None], axis=1)[:, 0]
        assert len(drawn) == 100
        assert (logits.max(axis=1) - drawn).max() <= 0.5


def _changed(params: SamplingParams, **changes: Any) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params.__slots__} | changes


def _count_rows(model: Model) -> list[int]:
    """Record the rows of each step from now on."""
    calls: list[int] = []
    forward = model.decoder.forward

    def counted(cache: Any, chunks: Any, rows: Any) -> Any:
        if len(rows) >= 1 and len(rows) == len(chunks[0]):
            calls.append(len(rows))
        return forward(cache, chunks, rows)

    model.decoder.forward = counted  # type: ignore[method-assign]
    return calls


def test_a_conversation_continues_after_an_answer_cancelled_within_a_draft(
    ja_small: Callable[..., Path],
) -> None:
    with Model.load(ja_small("int8", kv_cache="int8"), threads=1) as model:
        texts = []
        for lookup in (True, False):
            chat = Conversation(model)
            params = SamplingParams(
                temperature=0, min_new_tokens=20, max_new_tokens=24, lookup=lookup
            )
            stream = chat.stream("猫 猫 猫 猫 猫 猫", params)
            for _ in range(7):
                next(stream)
            stream.cancel()
            texts.append((chat.turns, chat.reply("もう一度", params).text))
        assert texts[0] == texts[1]
