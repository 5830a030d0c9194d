"""The generation loop, with a decoder whose answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issun.runtime.decoding.drafts import Drafts
from issun.runtime.decoding.generate import Segment, Timings, generate
from issun.runtime.decoding.latency import Percentiles
from issun.runtime.decoding.sampling import Sampler, SamplingParams, Vocabulary
from issun.runtime.errors import ContextError, ParameterError, SamplingError
from issun.runtime.text.stream import TextStream
from tests.runtime.decoders import Script, ScriptedDecoder, Ticks, saying

UNK, EOS = 0, 1
PIECES = ["", "", "あ", "い", "う", "ST", "OP", "\\", "n", "。"]


class Letters:
    """A tokenizer for PIECES."""

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(PIECES[i] for i in ids)

    byte_level = whole_runs = False

    def is_byte(self, token: int) -> bool:
        return False


def run(
    decoder: ScriptedDecoder,
    prompt: Sequence[int],
    *,
    cache: Any = None,
    answer: Sequence[int] = (),
    row_cost: float | None = None,
    **params: Any,
) -> Iterator[Segment]:
    chosen = SamplingParams(**{"temperature": 0, **params})
    text = TextStream(Letters(), r"\n", chosen.stop)  # type: ignore[arg-type]
    text.resume_after(answer)
    return generate(
        decoder,
        decoder.new_cache() if cache is None else cache,
        prompt,
        chosen,
        sampler=Sampler(
            chosen, Vocabulary(rows=10, pieces=10, ends=(EOS,), unk=UNK), np.random.default_rng(0)
        ),
        text=text,
        ends=(EOS,),
        answer=answer,
        drafts=None if row_cost is None else Drafts([*prompt, *answer], row_cost),
        clock=Ticks(),
    )


def said(script: Script, prompt: Sequence[int] = (2, 3), **options: Any) -> list[Segment]:
    n_positions = options.pop("n_positions", 64)
    return list(run(ScriptedDecoder(script, n_positions=n_positions), prompt, **options))


def reasons(segments: list[Segment]) -> list[str | None]:
    return [segment.finish_reason for segment in segments]


def test_stops_at_the_end_token() -> None:
    segments = said(saying(2, 3, EOS, after=2))
    assert [s.id for s in segments] == [2, 3, EOS]
    assert [s.text for s in segments] == ["あ", "い", ""]
    assert reasons(segments) == [None, None, "stop"]


def test_stops_at_once() -> None:
    assert reasons(said(saying(EOS, after=2))) == ["stop"]


def test_stops_at_a_stop_string_over_tokens() -> None:
    segments = said(saying(2, 5, 6, 2, after=2), stop=("STOP",))
    assert [s.text for s in segments] == ["あ", "", ""]
    assert reasons(segments) == [None, None, "stop"]


def test_text_held_for_a_stop_string_comes_at_the_end_token() -> None:
    segments = said(saying(2, 5, EOS, after=2), stop=("STOP",))
    assert [s.text for s in segments] == ["あ", "", "ST"]
    assert reasons(segments)[-1] == "stop"


def test_ends_at_max_new_tokens_with_all_text() -> None:
    segments = said(saying(2, 5, 3, after=2), stop=("STOP",), max_new_tokens=2)
    assert [s.text for s in segments] == ["あ", "ST"]
    assert reasons(segments) == [None, "length"]


def test_a_stop_string_in_the_last_token_is_a_stop() -> None:
    assert reasons(said(saying(2, 9, after=2), stop=("。",), max_new_tokens=2)) == [None, "stop"]


def test_final_newline_is_left_out() -> None:
    segments = said(saying(2, 7, 8, EOS, after=2))
    assert [s.text for s in segments] == ["あ", "", "", ""]
    assert "".join(s.text for s in said(saying(2, 7, 8, 3, EOS, after=2))) == "あ\nい"


@pytest.mark.parametrize(("n_positions", "count"), [(3, 1), (7, 5), (200, 100)])
def test_ends_at_the_end_of_the_context(n_positions: int, count: int) -> None:
    segments = said(saying(2, after=2), n_positions=n_positions)
    assert len(segments) == count
    assert reasons(segments) == [None] * (count - 1) + ["length"]


@pytest.mark.parametrize("length", [5, 6])
def test_a_prompt_that_leaves_no_room_is_refused_before_any_work(length: int) -> None:
    decoder = ScriptedDecoder(saying(2, after=0), n_positions=5)
    with pytest.raises(ContextError, match=rf"has {length} tokens.* context of 5"):
        next(run(decoder, [2] * length))
    assert decoder.calls == []


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ParameterError, match="prompt is empty"):
        said(saying(2, after=0), [])


@pytest.mark.parametrize("token", [-1, 10])
def test_an_id_out_of_range_is_refused_before_any_work(token: int) -> None:
    decoder = ScriptedDecoder(saying(2, after=0))
    with pytest.raises(ParameterError, match=f"{token} is out of range.* 0 to 9"):
        next(run(decoder, [2, token, 3]))
    assert decoder.calls == []


def test_min_new_tokens_keeps_the_end_token_away() -> None:
    segments = said(saying(EOS, after=2), min_new_tokens=3)
    assert len(segments) == 4
    assert EOS not in [s.id for s in segments[:3]]
    assert reasons(segments) == [None, None, None, "stop"]


def test_nothing_is_computed_after_the_last_token() -> None:
    decoder = ScriptedDecoder(saying(2, 3, 4, after=2))
    cache = decoder.new_cache()
    assert len(list(run(decoder, [8, 9], cache=cache, max_new_tokens=3))) == 3
    assert decoder.calls == [[8, 9], [2], [3]]
    assert cache.ids == [[8, 9, 2, 3]]


def test_only_the_new_part_of_the_prompt_is_computed() -> None:
    decoder = ScriptedDecoder(saying(2, EOS, after=0))
    cache = decoder.new_cache()
    cache.ids[0] = [5, 6, 7, 8]
    (segment,) = run(decoder, [5, 6, 9, 9], cache=cache, max_new_tokens=1)
    assert decoder.calls == [[9, 9]]
    assert segment.timings.reused_tokens == 2
    assert segment.timings.prompt_tokens == 4
    # The last id is always computed again, for its logits.
    (segment,) = run(decoder, [5, 6, 9, 9], cache=cache, max_new_tokens=1)
    assert decoder.calls[1:] == [[9]]
    assert segment.timings.reused_tokens == 3


def test_timings_are_from_the_clock() -> None:
    timings = [
        (s.timings.new_tokens, s.timings.time_to_first_token, s.timings.total_time)
        for s in run(ScriptedDecoder(saying(2, 3, EOS, after=2)), [8, 9])
    ]
    # The clock is read at the start and once per token; Timings is updated in each segment.
    assert timings == [(1, 1.0, 1.0), (2, 1.0, 2.0), (3, 1.0, 3.0)]


def test_the_time_of_each_token_is_kept() -> None:
    found = [s.timings for s in run(ScriptedDecoder(saying(2, 3, EOS, after=2)), [8, 9])]
    assert [list(timings.token_times) for timings in found] == [[1.0, 2.0, 3.0]] * 3
    latencies = [timings.inter_token_latency for timings in found]
    assert latencies == [None, Percentiles(1, 1, 1), Percentiles(1, 1, 1)]


def test_speeds() -> None:
    timings = Timings(
        prompt_tokens=50, reused_tokens=10, new_tokens=21, time_to_first_token=2.0, total_time=7.0
    )
    assert timings.prefill_tokens_per_second == 20
    assert timings.tokens_per_second == 4
    assert Timings().prefill_tokens_per_second == Timings().tokens_per_second == 0
    assert Timings(new_tokens=1, time_to_first_token=1, total_time=1).tokens_per_second == 0


def test_an_answer_is_continued() -> None:
    decoder = ScriptedDecoder(saying(2, 7, 8, 3, EOS, after=2))
    segments = list(run(decoder, [8, 9], answer=[2, 7], min_new_tokens=3))
    assert [s.id for s in segments] == [8, 3, EOS]
    assert decoder.calls[0] == [8, 9, 2, 7]
    assert segments[0].timings.prompt_tokens == 4


def test_penalties_count_the_answer_that_is_continued() -> None:
    (segment,) = said(saying(2, after=2), answer=[2], presence_penalty=20, max_new_tokens=1)
    assert segment.id != 2


def test_logprobs_of_the_sampled_and_the_likeliest_tokens() -> None:
    first, *_ = said(saying(2, EOS, after=2), logprobs=2, banned_ids=(2,))
    assert first.logprob is not None
    total = np.log(np.exp(10) + 9)
    assert first.id != 2
    assert first.logprob.drawn == pytest.approx(-total)
    assert len(first.logprob.top) == 2
    assert first.logprob.top[2] == pytest.approx(10 - total)


def test_no_logprobs_unless_requested() -> None:
    assert said(saying(EOS, after=2))[0].logprob is None


def test_nan_ends_with_an_error() -> None:
    decoder = ScriptedDecoder(saying(2, after=0))
    decoder.forward = lambda *_: np.full((1, 10), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(SamplingError):
        next(run(decoder, [2]))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.lists(st.text("STOP。\n", min_size=1, max_size=3), max_size=2),
    st.integers(1, 12),
)
def test_exactly_the_last_segment_has_a_reason(
    tokens: list[int], stop: list[str], max_new_tokens: int
) -> None:
    segments = said(saying(*tokens, EOS, after=2), stop=tuple(stop), max_new_tokens=max_new_tokens)
    assert all(reason is None for reason in reasons(segments[:-1]))
    assert segments[-1].finish_reason in ("stop", "length")
    whole = TextStream(Letters(), r"\n", stop)  # type: ignore[arg-type]
    ids = [s.id for s in segments if s.id != EOS]
    end = whole.finish if segments[-1].finish_reason == "stop" else whole.pause
    expected = "".join([*(whole.push(i) for i in ids), end()])
    assert "".join(s.text for s in segments) == expected
