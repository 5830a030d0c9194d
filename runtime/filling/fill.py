"""Fills JSON leaf by leaf: the fixed text is inserted, and the model writes only the values."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from issun.runtime.constraint.effort import Effort
from issun.runtime.decoding.answer import Completion, Stream
from issun.runtime.decoding.generate import FinishReason, Segment, Stop, Timings
from issun.runtime.decoding.sampling import Constraint, SamplingParams
from issun.runtime.errors import ParameterError
from issun.runtime.filling.leaves import Query
from issun.runtime.filling.plan import Plan
from issun.runtime.filling.skeleton import make_plan

if TYPE_CHECKING:
    from issun.runtime.model import Model

MakePrompt = Callable[[str], list[int]]  # a line to append to the user's text -> prompt ids
_Key = tuple[str | None, str | None]
_MIN_TOKENS = 2  # tokens of a value: one, and the end token
_MAX_SECONDS = 20.0  # for compiling all constraints of a schema
_MIN_SHARE = 12  # tokens of a value that every constraint has room for
_SEED_STEP = 0x9E3779B97F4A7C15  # keeps the seeds of a request's replies apart


class CompiledSchema:
    """A schema ready to be filled by one model: its plan, and the constraint of each reply.

    Created by `compile_schema`; can be used for many answers.
    """

    def __init__(self, plan: Plan, constraints: Mapping[_Key, Constraint]) -> None:
        self.plan, self._constraints = plan, constraints

    def constraint(self, query: Query) -> Constraint | None:
        """Return the constraint of the reply to `query`; None for free text."""
        return self._constraints.get(_key(query))


def compile_schema(
    model: Model, schema: dict[str, Any], *, max_tokens: int, effort: Effort | None = None
) -> CompiledSchema | None:
    """Compile `schema`; returns None if it has no fixed skeleton.

    `max_tokens` is the number of tokens for all replies together.

    Raises ParameterError for a schema that is unsupported or that the vocabulary cannot spell, if
    not even the shortest replies fit, and if it takes too much `effort`.
    """
    if effort is None:
        with model.preparation.effort() as own:
            return compile_schema(model, schema, max_tokens=max_tokens, effort=own)
    plan = make_plan(schema, partial(_spelled, model), most=max_tokens // _MIN_SHARE, effort=effort)
    if plan is None:
        return None
    least = _MIN_TOKENS * plan.count.least
    if least > max_tokens:
        raise ParameterError(
            "{name} needs at least {least:,} tokens, but the answer is limited to {limit:,}.",
            name="schema",
            least=least,
            limit=max_tokens,
        )
    share = max(_MIN_SHARE, max_tokens // max(1, plan.count.most))
    latest = time.monotonic() + _MAX_SECONDS
    constraints: dict[_Key, Constraint] = {}
    for query in plan.queries:
        key = _key(query)
        if key in constraints:
            continue
        if query.pattern is None and query.place is None:
            continue
        most = max_tokens if query.max_tokens is None else min(max_tokens, query.max_tokens)
        make = partial(_constraint, model, schema, query, effort)
        try:
            constraints[key] = make(min(most, share))
        except ParameterError:  # perhaps its smallest value needs more than an equal share
            constraints[key] = make(most)
        if time.monotonic() > latest:
            raise ParameterError(
                "{name} takes more than {limit:g} s to compile: simplify it.",
                name="schema",
                limit=_MAX_SECONDS,
            )
    return CompiledSchema(plan, constraints)


def _constraint(
    model: Model, schema: dict[str, Any], query: Query, effort: Effort, max_tokens: int
) -> Constraint:
    if query.pattern is not None:
        try:
            return model.constraints.regex(
                query.pattern, max_tokens=max_tokens, name=query.pattern_place or query.value_place
            )
        except ParameterError as error:
            if query.pattern_place is not None or "pattern" not in error.values:
                raise
            raise ParameterError(  # without the pattern, which is not the user's
                "{path}: not even the shortest value fits into {limit:,} tokens.",
                path=query.value_place,
                limit=max_tokens,
            ) from error
    return model.constraints.json_schema(
        schema, place=query.place or "#", max_tokens=max_tokens, effort=effort
    )


def _spelled(model: Model, text: str, path: str) -> str:
    return model.constraints.spelled(text, path)  # on first use: free text needs no llguidance


def _key(query: Query) -> _Key:
    return query.pattern, query.place


class SchemaFiller:
    """Fills one JSON answer: returns the next query and turns replies into segments.

    `pending` is the line and parameters of the current query, None at the end.
    `params.max_new_tokens` bounds all replies together; stop strings end each free text.
    """

    def __init__(self, compiled: CompiledSchema, question: str, params: SamplingParams) -> None:
        self._compiled, self._params = compiled, replace(params, min_new_tokens=0)
        self._steps = compiled.plan.fill(question)
        self._count = 0  # queries so far
        self._fixed_text = ""  # fixed text that is not in a segment yet
        self._answer = ""
        self._earlier = Timings()  # of the replies that have ended
        self.pending: tuple[str, SamplingParams] | None = None
        self._advance(None)

    def fixed_segment(self) -> Segment:
        """Return the only segment of JSON that needs no model; its id is not a token."""
        return Segment(-1, self._fixed_text, "stop", Timings())

    def add(self, segment: Segment) -> Segment:
        """Add a segment of the current reply; return a segment of the JSON."""
        self._answer += segment.text
        timings = _sum(self._earlier, segment.timings)
        reason: FinishReason | None = None
        if segment.finish_reason is not None and self.pending:
            self._earlier = timings
            reason = self._end(segment, self.pending[1])
        text, self._fixed_text = self._fixed_text, ""
        return replace(segment, text=text, finish_reason=reason, timings=timings)

    def _end(self, segment: Segment, wanted: SamplingParams) -> FinishReason | None:
        """Continue after the last segment of a reply; return the finish reason of the whole."""
        left = self._params.max_new_tokens - self._earlier.new_tokens
        bounded = segment.timings.new_tokens == wanted.max_new_tokens
        whole = bounded and (left > 0 or wanted.constraint is None)  # free text may be truncated
        if segment.finish_reason == "length" and not whole:
            self.pending = None
            return "length"
        answer, self._answer = self._answer, ""
        self._advance(answer)
        if self.pending is None:
            return "stop"
        if left == 0:
            self.pending = None
            return "length"
        return None

    def _advance(self, answer: str | None) -> None:
        """Send a reply and collect fixed text up to the next query."""
        self.pending = None
        try:
            step = next(self._steps) if answer is None else self._steps.send(answer)
            while isinstance(step, str):
                self._fixed_text += step
                step = next(self._steps)
        except StopIteration:
            return
        self.pending = step.line, self._params_for(step)
        self._count += 1

    def _params_for(self, query: Query) -> SamplingParams:
        left = max(1, self._params.max_new_tokens - self._earlier.new_tokens)
        seed = self._params.seed
        constraint = self._compiled.constraint(query)
        if constraint is None:  # free text has no end of its own and gets an equal share
            left = max(1, left // max(1, self._compiled.plan.count.most - self._count))
        return replace(
            self._params,
            constraint=constraint,
            stop=() if constraint else self._params.stop,
            max_new_tokens=left if query.max_tokens is None else min(left, query.max_tokens),
            seed=None if seed is None else (seed + self._count * _SEED_STEP) % (1 << 64),
        )


def fill(
    model: Model,
    compiled: CompiledSchema,
    make_prompt: MakePrompt,
    question: str,
    params: SamplingParams,
    *,
    adapter: str | None = None,
) -> Stream:
    """Stream JSON that is filled leaf by leaf, with one of the model's adapters if it is named.

    `make_prompt` returns the prompt for a line after the user's text. `question` is the part of
    that text that replies may repeat. The finish reason is `length` if `max_new_tokens` or the
    context truncated the JSON. Iterating raises what `Model.stream` raises.
    """
    filler = SchemaFiller(compiled, question, params)
    segments = partial(_segments, model, filler, make_prompt, adapter)
    return Stream(segments, None, ends=model.manifest.tokens.end_ids, pending_text=lambda: "")


def _segments(
    model: Model, filler: SchemaFiller, make_prompt: MakePrompt, adapter: str | None, stop: Stop
) -> Generator[Segment, None, None]:
    if filler.pending is None:
        yield filler.fixed_segment()
        return
    cache = model.new_cache()
    try:
        while filler.pending and not stop():
            line, wanted = filler.pending
            stream = model.start(cache, make_prompt(line), wanted, adapter=adapter, stop=stop)
            try:
                for segment in stream:
                    yield filler.add(segment)
            finally:
                stream.close()
    finally:
        cache.close()


def fill_many(
    model: Model,
    compiled: CompiledSchema,
    prompts: Sequence[tuple[MakePrompt, str, SamplingParams]],
    *,
    slots: int = 16,
    on_complete: Callable[[int, Completion], object] = lambda index, completion: None,
) -> list[Completion]:
    """Fill `compiled` for many questions; each has a prompt maker, a text and parameters.

    The next values of all of them are generated as one batch. `on_complete` receives the index of a
    question and its answer when that has ended. `ids` and `logprobs` of the answers are empty.
    """
    fillers = [SchemaFiller(compiled, question, params) for _, question, params in prompts]
    texts = ["" for _ in prompts]
    found: dict[int, Completion] = {}

    def keep(index: int, segment: Segment) -> None:
        texts[index] += segment.text
        if segment.finish_reason:
            completion = Completion(texts[index], [], segment.finish_reason, segment.timings)
            found[index] = completion
            on_complete(index, completion)

    for index, filler in enumerate(fillers):
        if filler.pending is None:
            keep(index, filler.fixed_segment())
    while pending := [(index, f.pending) for index, f in enumerate(fillers) if f.pending]:
        answers = model.generate_many(
            [prompts[index][0](line) for index, (line, _) in pending],
            [params for _, (_, params) in pending],
            slots=slots,
        )
        for (index, _), answer in zip(pending, answers, strict=True):
            whole = Segment(-1, answer.text, answer.finish_reason, answer.timings)
            keep(index, fillers[index].add(whole))
    return [found[index] for index in range(len(prompts))]


def _sum(before: Timings, now: Timings) -> Timings:
    return Timings(
        prompt_tokens=before.prompt_tokens + now.prompt_tokens,
        reused_tokens=before.reused_tokens + now.reused_tokens,
        new_tokens=before.new_tokens + now.new_tokens,
        time_to_first_token=before.time_to_first_token or now.time_to_first_token,
        total_time=before.total_time + now.total_time,
    )
