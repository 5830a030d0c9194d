"""JSON filled leaf by leaf: the known text is written for the model, which writes only values."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from issun.runtime.answer import Completion, Stream
from issun.runtime.constraint.effort import Effort
from issun.runtime.errors import ParameterError
from issun.runtime.generate import FinishReason, Segment, Stop, Timings
from issun.runtime.leaves import Ask
from issun.runtime.sampling import Constraint, SamplingParams
from issun.runtime.skeleton import Plan, make_plan

if TYPE_CHECKING:
    from issun.runtime.model import Model

MakePrompt = Callable[[str], list[int]]  # a line that comes behind the user's text -> a prompt
_Key = tuple[str | None, str | None]
_FEWEST = 2  # tokens of a value: one, and the end
_MOST_SECONDS = 20.0  # to compile all constraints of a schema
_SHORT = 12  # tokens of a value that every constraint leaves room for
_NEXT_SEED = 0x9E3779B97F4A7C15  # far from the seeds of other answers


class Form:
    """A schema ready to be filled by one model: its plan, and the constraint of each answer.

    Made by `prepare`; serves many answers.
    """

    def __init__(self, plan: Plan, constraints: Mapping[_Key, Constraint]) -> None:
        self.plan, self._constraints = plan, constraints

    def constraint(self, ask: Ask) -> Constraint | None:
        """What the answer to `ask` follows; None for free text."""
        return self._constraints.get(_key(ask))


def prepare(
    model: Model, schema: dict[str, Any], *, room: int, effort: Effort | None = None
) -> Form | None:
    """Make a form of `schema`; None where it has no fixed skeleton.

    `room` is how many tokens the answers may have behind the user's text, all together.

    Raises ParameterError for what cannot be followed, or not in the model's vocabulary, where not
    even the shortest answers fit, and for what takes too much `effort`.
    """
    if effort is None:
        with model.effort() as own:
            return prepare(model, schema, room=room, effort=own)
    plan = make_plan(schema, partial(_spelled, model), most=room // _SHORT, effort=effort)
    if plan is None:
        return None
    least = _FEWEST * plan.count.least
    if least > room:
        raise ParameterError(
            "{name} needs {least:,} tokens or more, and the answer may have {room:,}.",
            name="schema",
            least=least,
            room=room,
        )
    share = max(_SHORT, room // max(1, plan.count.most))
    latest = time.monotonic() + _MOST_SECONDS
    constraints: dict[_Key, Constraint] = {}
    for ask in plan.asks:
        key = _key(ask)
        if key in constraints:
            continue
        if ask.pattern is None and ask.place is None:
            continue
        most = room if ask.most is None else min(room, ask.most)
        make = partial(_constraint, model, schema, ask, effort)
        try:
            constraints[key] = make(min(most, share))
        except ParameterError:  # perhaps its smallest value needs more than the others
            constraints[key] = make(most)
        if time.monotonic() > latest:
            raise ParameterError(
                "{name} takes more than {limit:g} s to compile: take a simpler one.",
                name="schema",
                limit=_MOST_SECONDS,
            )
    return Form(plan, constraints)


def _constraint(
    model: Model, schema: dict[str, Any], ask: Ask, effort: Effort, room: int
) -> Constraint:
    if ask.pattern is not None:
        try:
            return model.constraints.regex(ask.pattern, room=room, name=ask.name or ask.path)
        except ParameterError as error:
            if ask.name is not None or "pattern" not in error.values:
                raise
            raise ParameterError(  # without a pattern that nobody has seen
                "{path}: not even the shortest value fits into {room:,} tokens.",
                path=ask.path,
                room=room,
            ) from error
    return model.constraints.json_schema(schema, place=ask.place or "#", room=room, effort=effort)


def _spelled(model: Model, text: str, path: str) -> str:
    return model.constraints.spelled(text, path)  # only now: free text needs no llguidance


def _key(ask: Ask) -> _Key:
    return ask.pattern, ask.place


class Filling:
    """One JSON answer as it is filled: says what to ask next, and makes segments of the answers.

    `asked` is the line and the parameters of the answer that is wanted now, None at the end;
    `params.max_new_tokens` bounds all answers together, stop strings end each free text.
    """

    def __init__(self, form: Form, question: str, params: SamplingParams) -> None:
        self._form, self._params = form, replace(params, min_new_tokens=0)
        self._steps = form.plan.fill(question)
        self._count = 0  # answers that were asked for
        self._known = ""  # text that is certain, but in no segment
        self._answer = ""
        self._before = Timings()  # of the answers that have ended
        self.asked: tuple[str, SamplingParams] | None = None
        self._go_on(None)

    def end(self) -> Segment:
        """The one segment of JSON that needs no model; its id is of no token."""
        return Segment(-1, self._known, "stop", Timings())

    def add(self, segment: Segment) -> Segment:
        """Take a segment of the answer that is asked for; gives one of the JSON."""
        self._answer += segment.text
        timings = _sum(self._before, segment.timings)
        reason: FinishReason | None = None
        if segment.finish_reason is not None and self.asked:
            self._before = timings
            reason = self._end(segment, self.asked[1])
        text, self._known = self._known, ""
        return replace(segment, text=text, finish_reason=reason, timings=timings)

    def _end(self, segment: Segment, wanted: SamplingParams) -> FinishReason | None:
        """Go on behind the last segment of an answer; gives the finish reason of the whole."""
        left = self._params.max_new_tokens - self._before.new_tokens
        bounded = segment.timings.new_tokens == wanted.max_new_tokens
        whole = bounded and (left > 0 or wanted.constraint is None)  # of free text more is cut off
        if segment.finish_reason == "length" and not whole:
            self.asked = None
            return "length"
        answer, self._answer = self._answer, ""
        self._go_on(answer)
        if self.asked is None:
            return "stop"
        if left == 0:
            self.asked = None
            return "length"
        return None

    def _go_on(self, answer: str | None) -> None:
        """Send an answer, gather the text that is then known, up to the next thing to ask."""
        self.asked = None
        try:
            step = next(self._steps) if answer is None else self._steps.send(answer)
            while isinstance(step, str):
                self._known += step
                step = next(self._steps)
        except StopIteration:
            return
        self.asked = step.line, self._params_for(step)
        self._count += 1

    def _params_for(self, ask: Ask) -> SamplingParams:
        left = max(1, self._params.max_new_tokens - self._before.new_tokens)
        seed = self._params.seed
        constraint = self._form.constraint(ask)
        if constraint is None:  # free text takes its share of what is left, and has no other end
            left = max(1, left // max(1, self._form.plan.count.most - self._count))
        return replace(
            self._params,
            constraint=constraint,
            stop=() if constraint else self._params.stop,
            max_new_tokens=left if ask.most is None else min(left, ask.most),
            seed=None if seed is None else (seed + self._count * _NEXT_SEED) % (1 << 64),
        )


def fill(
    model: Model, form: Form, make_prompt: MakePrompt, question: str, params: SamplingParams
) -> Stream:
    """JSON that is filled leaf by leaf, as it comes.

    `make_prompt` gives the prompt for a line behind the user's text, and `question` is what of
    that text the answers may repeat. The finish reason is `length` where `max_new_tokens` or the
    context cut the JSON. Raises as `Model.stream` does, while it is read.
    """
    segments = partial(_segments, model, Filling(form, question, params), make_prompt)
    return Stream(segments, None, ends=model.manifest.tokens.end_ids, held_text=lambda: "")


def _segments(
    model: Model, filling: Filling, make_prompt: MakePrompt, stop: Stop
) -> Generator[Segment, None, None]:
    if filling.asked is None:
        yield filling.end()
        return
    cache = model.new_cache()
    try:
        while filling.asked and not stop():
            line, wanted = filling.asked
            stream = model.start(cache, make_prompt(line), wanted, stop=stop)
            try:
                for segment in stream:
                    yield filling.add(segment)
            finally:
                stream.close()
    finally:
        cache.close()


def fill_many(
    model: Model,
    form: Form,
    prompts: Sequence[tuple[MakePrompt, str, SamplingParams]],
    *,
    slots: int = 16,
    on_complete: Callable[[int, Completion], object] = lambda place, completion: None,
) -> list[Completion]:
    """Fill `form` for many questions at once; each has its prompt maker, text and parameters.

    The next values of all are written in one batch. `on_complete` gets the place of a question and
    its answer when that has ended. `ids` and `logprobs` of the answers are empty.
    """
    fillings = [Filling(form, question, params) for _, question, params in prompts]
    texts = ["" for _ in prompts]
    found: dict[int, Completion] = {}

    def keep(place: int, segment: Segment) -> None:
        texts[place] += segment.text
        if segment.finish_reason:
            completion = Completion(texts[place], [], segment.finish_reason, segment.timings)
            found[place] = completion
            on_complete(place, completion)

    for place, filling in enumerate(fillings):
        if filling.asked is None:
            keep(place, filling.end())
    while asked := [(place, f.asked) for place, f in enumerate(fillings) if f.asked]:
        answers = model.generate_many(
            [prompts[place][0](line) for place, (line, _) in asked],
            [params for _, (_, params) in asked],
            slots=slots,
        )
        for (place, _), answer in zip(asked, answers, strict=True):
            whole = Segment(-1, answer.text, answer.finish_reason, answer.timings)
            keep(place, fillings[place].add(whole))
    return [found[place] for place in range(len(prompts))]


def _sum(before: Timings, now: Timings) -> Timings:
    return Timings(
        prompt_tokens=before.prompt_tokens + now.prompt_tokens,
        reused_tokens=before.reused_tokens + now.reused_tokens,
        new_tokens=before.new_tokens + now.new_tokens,
        time_to_first_token=before.time_to_first_token or now.time_to_first_token,
        total_time=before.total_time + now.total_time,
    )
