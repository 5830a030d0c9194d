"""Many answers at a time are the ones that each prompt gets alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import Model, SamplingParams
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.generate import Segment
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.decoding.sampling import top_logprobs
from issun.runtime.errors import ContextError, OutOfMemoryError
from issun.server.errors import DeadlineError, QueueFullError, UnavailableError
from issun.server.metrics import Metrics
from issun.server.requests import Event, Failed, Progress, Request, Scored
from issun.server.scheduler import Scheduler

GREEDY = SamplingParams(temperature=0, lookup=False, max_new_tokens=30)


@contextmanager
def working(model: Model, *, slots: int = 4, **options: Any) -> Iterator[Scheduler]:
    defaults = {"max_queue": 64, "deadline": 60.0, "drafting": 2, "prefill_first": False}
    chosen = {**defaults, **options}
    scheduler = Scheduler(model, Metrics(), slots=slots, **chosen)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.stop()
        scheduler.join()
    model.check_free()


class Listener:
    """Collects the events of one request."""

    def __init__(self, prompt: list[int], params: SamplingParams = GREEDY, **options: Any) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.request = Request(prompt=prompt, params=params, emit=self.events.put, **options)

    def text(self) -> str:
        """Wait for the whole answer; raises the error that it ended with."""
        return "".join(s.text for s in self.segments())

    def segments(self) -> Iterator[Segment]:
        while True:
            event = self.events.get(timeout=60)
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Segment):
                yield event
                if event.finish_reason:
                    return


QUESTIONS = [
    "日本で一番高い山は?",
    "日本で一番広い湖は?",
    "あなたは誰ですか?",
    "フランスの首都は?",
    "3足す5は?",
    "おはようございます。",
    "北海道の県庁所在地は?",
    "世界で一番長い川は?",
]


def test_answers_together_are_those_alone(embedded: Model) -> None:
    jobs = [
        (embedded.prompt(text), replace(GREEDY, temperature=0.7 * (n % 2), seed=n))
        for n, text in enumerate(QUESTIONS * 2)
    ]
    alone = [embedded.generate(*job).text for job in jobs]
    with working(embedded) as scheduler:
        listeners = [Listener(*job) for job in jobs]
        scheduler.submit([listener.request for listener in listeners])
        assert [listener.text() for listener in listeners] == alone
    assert all(alone)


QUOTED = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
SEEDED = SamplingParams(temperature=0.7, max_new_tokens=40, seed=3, logprobs=2)


@pytest.fixture
def exact(ja_small: Callable[..., Path]) -> Iterator[Model]:
    """A model whose results for one row and for several agree within 1e-5."""
    with Model.load(ja_small("int8", kv_cache="int8"), threads=1) as model:
        model.decoder.row_cost = 0.04  # also where more rows cost much
        yield model


def drafting_jobs(model: Model, **changes: Any) -> list[tuple[list[int], SamplingParams]]:
    prompts = [model.prompt("次の文を写してください。", QUOTED * n) for n in (2, 1)]
    return [(prompts[n], replace(SEEDED, seed=n, **changes)) for n in range(2)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.0},
        {"stop": ("る。",)},
        {"repetition_penalty": 1.2, "frequency_penalty": 0.3},
        {"max_new_tokens": 24},
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_drafts_change_no_answer(exact: Model, count: int, changes: dict[str, Any]) -> None:
    jobs = drafting_jobs(exact, **changes)[:count]
    widths = record_widths(exact)
    answers = []
    for drafting in (2, 0):
        with working(exact, drafting=drafting) as scheduler:
            listeners = [Listener(*job) for job in jobs]
            scheduler.submit([listener.request for listener in listeners])
            answers.append([list(listener.segments()) for listener in listeners])
        assert (max(widths) > 1) == (drafting > 0)
        widths.clear()
    for drafted, plain in zip(*answers, strict=True):
        assert [(s.id, s.text, s.finish_reason) for s in drafted] == [
            (s.id, s.text, s.finish_reason) for s in plain
        ]
        assert [s.timings.new_tokens for s in drafted] == list(range(1, len(plain) + 1))
        for one, other in zip(drafted, plain, strict=True):
            assert one.logprob is not None
            assert other.logprob is not None
            assert one.logprob.drawn == pytest.approx(other.logprob.drawn, abs=1e-4)
            assert one.logprob.top == pytest.approx(other.logprob.top, abs=1e-4)


def test_a_constraint_holds_within_drafts(exact: Model) -> None:
    constraint = exact.constraints.regex("(吾輩は猫である。|名前はまだ無い。){4}", max_tokens=40)
    jobs = drafting_jobs(exact, constraint=constraint)
    expected = [exact.generate(prompt, replace(one, lookup=False)).text for prompt, one in jobs]
    widths = record_widths(exact)
    with working(exact) as scheduler:
        listeners = [Listener(*job) for job in jobs]
        scheduler.submit([listener.request for listener in listeners])
        assert [listener.text() for listener in listeners] == expected
    assert max(widths) > 1


def test_three_answers_are_decoded_without_drafts(exact: Model) -> None:
    jobs = [*drafting_jobs(exact), *drafting_jobs(exact)]
    widths = record_widths(exact)
    with working(exact) as scheduler:
        endless = replace(SEEDED, max_new_tokens=60, min_new_tokens=60)
        listeners = [Listener(prompt, endless) for prompt, _ in jobs[:3]]
        scheduler.submit([listener.request for listener in listeners])
        assert all(listener.text() for listener in listeners)
    assert len(widths) > 50
    assert max(widths) == 1


def test_rejected_tokens_are_not_kept(exact: Model) -> None:
    (prompt, params), _ = drafting_jobs(exact)
    with working(exact) as scheduler:
        listener = Listener(prompt, params)
        scheduler.submit([listener.request])
        ids = [segment.id for segment in listener.segments()]
        held = scheduler._slots.cache.ids[0]
    assert held == [*prompt, *ids][: len(held)]
    assert len(held) >= len(prompt) + len(ids) - 1


def test_a_request_without_lookup_has_no_drafts(exact: Model) -> None:
    (prompt, params), _ = drafting_jobs(exact, lookup=False)
    widths = record_widths(exact)
    with working(exact) as scheduler:
        listener = Listener(prompt, params)
        scheduler.submit([listener.request])
        assert listener.text()
    assert max(widths) == 1


def record_widths(model: Model) -> list[int]:
    """The rows of the widest sequence in each decoding step from now on."""
    forward: Callable[..., Any] = model.decoder.forward
    widths: list[int] = []

    def recorded(cache: Any, chunks: Any, rows: Any, **options: Any) -> Any:
        if not options:  # a prefill names its first slot
            widths.append(max(map(len, chunks)))
        return forward(cache, chunks, rows, **options)

    model.decoder.forward = recorded  # type: ignore[method-assign]
    return widths


def test_a_long_prompt_is_read_in_pieces_while_others_go_on(embedded: Model) -> None:
    long = embedded.tokenizer.encode("富士山は日本で一番高い山です。" * 60)[:400]
    endless = replace(GREEDY, max_new_tokens=400, min_new_tokens=400)
    with working(embedded) as scheduler:
        alone = Listener(long)
        scheduler.submit([alone.request])
        assert pieces_of(alone) == [128, 256, 384, 400]
        running, beside = Listener(embedded.prompt("こんにちは"), endless), Listener(long[::-1])
        scheduler.submit([running.request])
        next(running.segments())
        scheduler.submit([beside.request])
        assert pieces_of(beside)[:3] == [32, 64, 96]
        given = sum(isinstance(event, Segment) for event in running.events.queue)
        assert given >= 12  # one token for each piece
        scheduler.cancel([running.request])


def test_prompts_go_first_where_throughput_counts(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = embedded.tokenizer.encode("富士山は日本で一番高い山です。" * 60)[:400]
    endless = replace(GREEDY, max_new_tokens=400, min_new_tokens=400)
    with working(embedded, prefill_first=True) as scheduler:
        running, beside = Listener(embedded.prompt("こんにちは"), endless), Listener(long)
        scheduler.submit([running.request])
        next(running.segments())
        steps = record_steps(embedded, monkeypatch)
        scheduler.submit([beside.request])
        beside.text()
        widths = [max(step) for step in steps]
        first = widths.index(128)
        assert widths[first : first + 5] == [128, 128, 128, 16, 1]
        scheduler.cancel([running.request])


def pieces_of(listener: Listener) -> list[int]:
    """How far the prompt was read at each step, up to the first token."""
    pieces = []
    while isinstance(event := listener.events.get(timeout=60), Progress):
        pieces.append(event.read)
    return pieces


def test_short_prompts_that_wait_are_read_together(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(embedded.prompt(text), GREEDY) for text in QUESTIONS]
    alone = [embedded.generate(*job).text for job in jobs]
    steps = record_steps(embedded, monkeypatch)
    with working(embedded, slots=len(jobs)) as scheduler:
        listeners = [Listener(*job) for job in jobs]
        scheduler.submit([listener.request for listener in listeners])
        assert [listener.text() for listener in listeners] == alone
    reads = reads_of(steps)
    assert len(reads[0]) > 1
    assert all(len(chunks) * max(chunks) <= 128 for chunks in reads)
    # all but the beginnings that were just read for another
    assert sum(map(sum, reads)) <= sum(len(prompt) for prompt, _ in jobs)


def record_steps(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the chunks of each forward, from now on."""
    forward: Callable[..., Any] = model.decoder.forward
    steps: list[list[int]] = []

    def recorded(cache: Any, chunks: Any, rows: Any, **options: Any) -> Any:
        steps.append([len(chunk) for chunk in chunks])
        return forward(cache, chunks, rows, **options)

    monkeypatch.setattr(model.decoder, "forward", recorded)
    return steps


def reads_of(steps: list[list[int]]) -> list[list[int]]:
    """The steps that read prompts."""
    return [step for step in steps if max(step) > 1]


def test_a_beginning_that_many_share_is_read_once(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = embedded.tokenizer.encode("富士山は日本で一番高い山です。" * 10)
    steps = record_steps(embedded, monkeypatch)
    with working(embedded) as scheduler:
        listeners = [Listener(prompt) for _ in range(4)]
        scheduler.submit([listener.request for listener in listeners])
        texts = [listener.text() for listener in listeners]
    assert len(set(texts)) == 1
    assert sum(map(sum, reads_of(steps))) == len(prompt) + 3 * 2


def test_scored_prompts_are_read_together(embedded: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [embedded.prompt(text) for text in QUESTIONS]
    expected = [
        [top_logprobs(row, token, 1)[0] for row, token in pairwise_rows(embedded, prompt)]
        for prompt in prompts
    ]
    steps = record_steps(embedded, monkeypatch)
    with working(embedded, slots=len(prompts)) as scheduler:
        listeners = [Listener(prompt, score=1, answer=False) for prompt in prompts]
        scheduler.submit([listener.request for listener in listeners])
        for listener, scores in zip(listeners, expected, strict=True):
            while not isinstance(event := listener.events.get(timeout=60), Scored):
                assert isinstance(event, Progress)
            found = [logprob.drawn for logprob in event.logprobs if logprob]
            assert found == pytest.approx(scores, abs=1e-4)
    assert len(reads_of(steps)[0]) > 1


def pairwise_rows(model: Model, prompt: list[int]) -> Iterator[tuple[Vector, int]]:
    """The logits behind each token, and the token that follows."""
    yield from zip(model.score(prompt), prompt[1:], strict=False)


def test_what_was_read_is_not_read_again(embedded: Model) -> None:
    prompt = embedded.prompt("日本で一番高い山は?")
    with working(embedded) as scheduler:
        for expected in (0, len(prompt) - 2):
            listener = Listener(prompt)
            scheduler.submit([listener.request])
            *_, last = listener.segments()
            assert last.timings.reused_tokens == expected


def test_prompts_are_scored_as_the_model_scores_them(embedded: Model) -> None:
    prompt = embedded.prompt("日本で一番高い山は?" * 18)
    logits = embedded.score(prompt)
    with working(embedded) as scheduler:
        listener = Listener(prompt, score=2, answer=False)
        scheduler.submit([listener.request])
        while not isinstance(event := listener.events.get(timeout=60), Scored):
            assert isinstance(event, Progress)
    first, *rest = event.logprobs
    assert first is None
    assert len(rest) == len(prompt) - 1 > 128
    for row, token, found in zip(logits, prompt[1:], rest, strict=False):
        assert found is not None
        drawn, top = top_logprobs(row, token, 2)
        assert found.drawn == pytest.approx(drawn, abs=1e-4)
        assert list(found.top) == list(top)


def test_a_cancelled_request_ends_and_the_others_do_not(embedded: Model) -> None:
    endless = replace(GREEDY, max_new_tokens=400, min_new_tokens=400)
    expected = embedded.generate(embedded.prompt("山は?"), GREEDY).text
    with working(embedded) as scheduler:
        gone, stays = Listener(embedded.prompt("はい"), endless), Listener(embedded.prompt("山は?"))
        scheduler.submit([gone.request, stays.request])
        next(gone.segments())
        scheduler.cancel([gone.request])
        assert stays.text() == expected
        wait_until(lambda: scheduler.running == 0)


def test_the_queue_is_bounded_and_says_when_to_come_again(embedded: Model) -> None:
    endless = replace(GREEDY, max_new_tokens=400, min_new_tokens=400)
    prompt = embedded.prompt("はい")
    with working(embedded, slots=1, max_queue=2) as scheduler:
        running = Listener(prompt, endless)
        scheduler.submit([running.request])
        next(running.segments())
        waiting = [Listener(prompt) for _ in range(2)]
        scheduler.submit([listener.request for listener in waiting])
        with pytest.raises(QueueFullError) as caught:
            scheduler.submit([Listener(prompt).request])
        assert caught.value.retry_after >= 1
        assert scheduler.queued == 2
        scheduler.cancel([running.request])
        assert [bool(listener.text()) for listener in waiting] == [True, True]


def test_a_request_that_takes_too_long_fails(embedded: Model) -> None:
    endless = replace(GREEDY, max_new_tokens=400, min_new_tokens=400)
    with working(embedded, deadline=0.05) as scheduler:
        listener = Listener(embedded.prompt("はい"), endless)
        scheduler.submit([listener.request])
        with pytest.raises(DeadlineError):
            listener.text()
        wait_until(lambda: scheduler.running == 0)


def test_an_end_lets_running_answers_finish_in_their_time(embedded: Model) -> None:
    with working(embedded) as scheduler:
        listener = Listener(embedded.prompt("日本で一番高い山は?"))
        scheduler.submit([listener.request])
        next(listener.segments())
        scheduler.stop(grace=30)
        assert listener.text()
        with pytest.raises(UnavailableError):
            scheduler.submit([Listener(embedded.prompt("はい")).request])


def test_an_end_without_grace_fails_what_runs_and_waits(embedded: Model) -> None:
    endless = replace(GREEDY, max_new_tokens=400, min_new_tokens=400)
    with working(embedded, slots=1) as scheduler:
        listeners = [Listener(embedded.prompt("はい"), endless) for _ in range(3)]
        scheduler.submit([listener.request for listener in listeners])
        next(listeners[0].segments())
        scheduler.stop()
        for listener in listeners:
            with pytest.raises(UnavailableError, match="ending"):
                listener.text()


def test_a_failed_step_fails_its_answers_and_the_next_ones_work(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: Callable[..., Any] = embedded.decoder.forward
    failing = threading.Event()

    def sometimes(*arguments: Any, **options: Any) -> Any:
        if failing.is_set():
            raise OutOfMemoryError("There is no memory for {n}.", n=1)
        return forward(*arguments, **options)

    monkeypatch.setattr(embedded.decoder, "forward", sometimes)
    prompt = embedded.prompt("日本で一番高い山は?")
    expected = embedded.generate(prompt, GREEDY).text
    with working(embedded) as scheduler:
        failing.set()
        listener = Listener(prompt)
        scheduler.submit([listener.request])
        with pytest.raises(OutOfMemoryError):
            listener.text()
        failing.clear()
        again = Listener(prompt)
        scheduler.submit([again.request])
        assert again.text() == expected


def test_a_beginning_that_cannot_be_copied_fails_its_answer_alone(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> None:
        raise OutOfMemoryError("There is not enough memory.")

    prompt = embedded.prompt("日本で一番高い山は?")
    expected = embedded.generate(prompt, GREEDY).text
    endless = replace(GREEDY, max_new_tokens=300, min_new_tokens=300)
    with working(embedded) as scheduler:
        running = Listener(prompt, endless)
        scheduler.submit([running.request])
        next(running.segments())
        with monkeypatch.context() as full:
            full.setattr(KVCache, "copy", no_memory)
            listener = Listener(prompt)
            scheduler.submit([listener.request])
            with pytest.raises(OutOfMemoryError):
                listener.text()
        again = Listener(prompt)
        scheduler.submit([again.request])
        assert again.text() == expected
        assert running.text()


def test_a_prompt_that_does_not_fit_is_refused_at_once(embedded: Model) -> None:
    with working(embedded) as scheduler, pytest.raises(ContextError):
        scheduler.submit([Listener([5] * 512).request])


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
