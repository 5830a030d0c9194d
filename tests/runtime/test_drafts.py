"""Draft tokens: where they come from, when they pay, and that they do not change answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issun.runtime import Conversation, Model, ParameterError, SamplingParams
from issun.runtime.decoding.drafts import Drafts, Guess, Predictions, Source, draft_together
from issun.runtime.decoding.generate import Segment
from tests.runtime.decoders import Script, ScriptedDecoder, saying
from tests.runtime.test_generate import EOS, run


def tokens(draft: list[Guess]) -> list[int]:
    return [guess.token for guess in draft]


def test_the_longest_run_is_used() -> None:
    drafts = Drafts([1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 0.01)
    assert drafts.draft(2) == [Guess(7, Source.RUN_OF_3), Guess(2, Source.RUN_OF_4)]
    # The latest of several.
    assert tokens(Drafts([1, 2, 3, 7, 2, 3, 8, 2, 3], 0.01).draft(1)) == [8]
    assert Drafts([1, 2, 3], 0.01).draft(2) == []
    assert Drafts([5, 1, 2, 3, 5], 0.01).draft(2) == []  # a single token is no run
    assert Drafts([], 0.01).draft(2) == []
    assert Drafts([1, 2, 1, 2], 0.01).draft(0) == []


def test_a_draft_ends_with_the_text() -> None:
    assert tokens(Drafts([4, 4, 4, 4, 4], 0.01).draft(8)) == [4]


def test_a_draft_is_as_long_as_its_tokens_are_worth_a_row() -> None:
    # A run of two is right once in four, of three too, of four and more once in two: 1/4, 1/16,
    # 1/32, 1/64, ..., times 2/3 from the eighth. The first row costs half as much again.
    def length(row_cost: float) -> int:
        return len(Drafts([*range(30), 0, 1], row_cost).draft(100))

    assert [length(cost) for cost in (0.17, 0.16, 0.06, 0.03, 0.015, 0.001)] == [0, 1, 2, 3, 4, 9]


def test_sources_that_are_wrong_are_not_used_any_more() -> None:
    drafts = Drafts([*range(30), 0, 1], 0.05)
    tries = 0
    while drafts.draft(1):
        for token in (100 + tries, 0, 1):
            drafts.accept(token)
        tries += 1
    assert tries == 10  # 1 right of 4 at first, of 13 at last


def test_wrong_guesses_take_little_of_an_answers_time() -> None:
    drafts = Drafts([*range(30), 0, 1], 0.1)  # 0.03 of 16 steps, or of more; a guess costs 0.15
    tries = []
    for token in range(100, 160):
        drafts._counts[Source.RUN_OF_2] = (1.0, 4.0)  # as if it was never wrong
        if drafts.draft(9):
            tries.append(token - 100)
        for following in (token, 0, 1):
            drafts.accept(following)
    assert tries[:6] == [0, 1, 2, 7, 9, 11]  # 0.45 lost; 0.6 after 21 tokens, 0.75 after 27
    assert len(tries) * 0.15 <= 0.03 * 180


def test_right_guesses_pay_for_wrong_ones() -> None:
    drafts, guess = Drafts([], 0.2), Guess(2, Source.AFTER_TWO)
    assert drafts.affordable(0.2) == 1  # 0.48, and two take 0.5
    drafts.verify([guess, guess], 0.4)
    assert drafts.affordable(0.2) == 0
    assert drafts.accept(2)
    assert drafts.affordable(0.2) == 4  # 0.48 + 0.6, and five take 1.1


def test_sources_that_are_right_are_trusted_further() -> None:
    drafts, last = Drafts([*range(100), 0, 1], 0.3), 1
    lengths = []
    for _ in range(7):
        lengths.append(len(drafts.draft(100)))
        accepted = True
        while accepted:  # the draft, and the token that the step samples
            last += 1
            accepted = drafts.accept(last)
    assert lengths == [0, 0, 1, 2, 2, 5, 11]  # runs of 2, 3, 4, 6, 9, 12 and 18 tokens


def test_old_guesses_count_half() -> None:
    drafts, guess = Drafts([], 0.5), Guess(2, Source.AFTER_TWO)
    for _ in range(16):  # 2 of 8, then 18 of 24
        drafts.verify([guess])
        assert drafts.accept(2)
    assert drafts._counts[Source.AFTER_TWO] == (18, 24)
    drafts.verify([guess])
    assert not drafts.accept(3)
    assert drafts._counts[Source.AFTER_TWO] == (9, 12.5)


def test_guesses_after_the_first_wrong_one_are_not_counted() -> None:
    drafts = Drafts([], 0.5)
    draft = [Guess(1, source) for source in (Source.RUN_OF_2, Source.RUN_OF_3)]
    drafts.verify(draft)
    assert [drafts.accept(token) for token in (2, 1)] == [False, False]
    assert drafts._counts[Source.RUN_OF_2] == (1, 5)
    assert drafts._counts[Source.RUN_OF_3] == (1, 4)
    drafts.verify(draft)
    assert [drafts.accept(token) for token in (1, 2, 1)] == [True, False, False]
    assert drafts._counts[Source.RUN_OF_2] == (2, 6)
    assert drafts._counts[Source.RUN_OF_3] == (1, 5)


def test_predictions_are_drafted_after_the_same_pair_and_else_after_the_same_token() -> None:
    predictions = Predictions()
    first = Drafts([1, 2], 0.01, predictions)
    first.predict(5)
    first.add(5)
    first.predict(6)
    first.add(7)  # the model drew another token than the likeliest
    second = Drafts([1, 2], 0.01, predictions)  # the next answer of the conversation
    assert second.draft(9) == [Guess(5, Source.AFTER_TWO), Guess(6, Source.AFTER_TWO)]
    other = Drafts([3, 2], 0.01, predictions)
    assert other.draft(9) == [Guess(5, Source.AFTER_ONE), Guess(6, Source.AFTER_TWO)]
    assert Drafts([1, 2], 0.01).draft(9) == []  # another conversation
    assert Drafts([2], 0.01, predictions).draft(9) == []


def test_a_run_is_followed_from_a_prediction_that_agrees_with_it() -> None:
    predictions = Predictions()
    predictions.add(1, 2, 3)
    drafts = Drafts([1, 2, 3, 4, 9, 1, 2], 0.001, predictions)
    assert tokens(drafts.draft(9)) == [3, 4, 9, 1, 2, 3]  # to the end of the text, and again
    predictions.add(1, 2, 8)
    for token in (5, 6, 7):  # quoting was wrong
        drafts.verify([Guess(3, Source.RUN_OF_2)])
        for read in (token, 1, 2):
            drafts.accept(read)
    assert tokens(drafts.draft(9)) == [8]


def test_drafts_of_a_batch_share_its_rows() -> None:
    def lengths(row_cost: float, *texts: list[int] | None) -> list[int]:
        batch = [None if text is None else Drafts(text, row_cost) for text in texts]
        return list(map(len, draft_together(batch, [9] * len(texts))))

    text = [*range(30), 0, 1]  # right with probabilities 1/4, 1/16, 1/32, 1/64, ...
    assert lengths(0.06, text) == [2]
    assert lengths(0.06, text, text) == [1, 1]  # 1/4 saves 0.265 of a step, and the rows cost 0.18
    assert lengths(0.06, text, None) == [0, 0]  # 1/8 saves 0.133
    assert lengths(0.04, text, None) == [1, 0]
    assert lengths(0.08, text, [5]) == [0, 0]  # 1/8 saves 0.135, and they cost 0.24
    assert lengths(0.06, None, None) == [0, 0]
    short = Drafts([4, 4, 4, 4, 4], 0.001)  # has one guess
    assert list(map(len, draft_together([short, Drafts(text, 0.001)], [9, 3]))) == [1, 3]


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
    # Two tokens must match; the first draft is accepted, and of the second all but its end.
    assert [len(call) for call in fewer.calls[1:]] == [1, 4, 9]


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


@pytest.mark.sampled
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_a_real_answer_is_the_same_where_steps_and_prefill_agree(
    ja_small: Callable[..., Path], temperature: float
) -> None:
    """int8 with an int8 KV cache: results for one row and several agree within 1e-5."""
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 2
    drafted = 0
    with Model.load(ja_small("int8", kv_cache="int8"), threads=1) as model:
        model.decoder.row_cost = 0.04  # as on a CPU with VNNI
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


@pytest.mark.sampled
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "float32", "int4"])
def test_otherwise_each_token_is_nearly_the_likeliest_of_a_replay(
    ja_small: Callable[..., Path], precision: str
) -> None:
    """Kernels for one row round differently from those for several rows, which verify a draft."""
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 2
    with Model.load(ja_small(precision), threads=1) as model:
        model.decoder.row_cost = 0.04
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
