"""JSON by a schema: filled leaf by leaf where it has a skeleton, by its grammar elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from issun.runtime.filling import Filling, Form, prepare
from issun.runtime.generate import Segment
from issun.runtime.prompt import FittedPrompt
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Events, Job
from issun.server.fitting import fit
from issun.server.messages import Dialogue
from issun.server.requests import Event
from issun.server.sampling import room_behind
from issun.server.service import Service


async def json_answers(
    service: Service, dialogue: Dialogue, schema: dict[str, Any], params: Sequence[SamplingParams]
) -> tuple[Events, int]:
    """Start answers to `dialogue` that follow `schema`, one for each of `params`.

    Gives how many old turns the prompt leaves out, too. An answer that a client has begun or that
    has a least length, and a schema without a skeleton, are written by the grammar. Raises
    ParameterError for a schema that cannot be followed, and as `Service.answers` does.
    """
    model = service.model
    fitted = await run_in_threadpool(fit, service, dialogue, params[0].max_new_tokens)
    room = room_behind(model, fitted.ids, params[0])
    if not (dialogue.beginning or params[0].min_new_tokens):
        form = await run_in_threadpool(partial(prepare, model, schema, room=room))
        if form:
            return FilledAnswers(service, form, dialogue, params), fitted.dropped_turns
    make = partial(model.constraints.json_schema, schema, room=room)
    constraint = await run_in_threadpool(make)
    jobs = [
        Job(fitted.ids, replace(some, constraint=constraint), continued=fitted.continued)
        for some in params
    ]
    return service.answers(jobs), fitted.dropped_turns


class FilledAnswers:
    """Answers that are filled leaf by leaf, with the face of `Answers`.

    A segment has a token that the model drew, the JSON that is certain by then, and the count of
    all tokens read and drawn so far.
    """

    def __init__(
        self, service: Service, form: Form, dialogue: Dialogue, params: Sequence[SamplingParams]
    ) -> None:
        self._service, self._dialogue = service, dialogue
        self._fillings = [Filling(form, dialogue.message, some) for some in params]
        asked = [filling.asked for filling in self._fillings if filling.asked]
        fitted = [self._fit(*one) for one in asked[:1]]  # the first leaf is the same for all
        self._answers = service.answers([Job(fitted[0].ids, some) for _, some in asked])
        self._begun: set[int] = set()  # those whose first leaf is read

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        """Events until all answers have ended; raises the error of the first that failed."""
        for place, filling in enumerate(self._fillings):
            if filling.asked is None:
                yield place, filling.end()
        async for place, event in self._answers:
            if not isinstance(event, Segment):
                if place not in self._begun:
                    yield place, event
                continue
            self._begun.add(place)
            filling = self._fillings[place]
            segment = filling.add(event)
            if event.finish_reason and filling.asked:
                line, params = filling.asked
                fitted = await run_in_threadpool(self._fit, line, params)
                self._answers.resume(place, Job(fitted.ids, params))
            yield place, segment

    def close(self) -> None:
        """Give up what has not ended."""
        self._answers.close()

    def _fit(self, line: str, params: SamplingParams) -> FittedPrompt:
        message = "\n".join(filter(None, (self._dialogue.message, line)))
        dialogue = self._dialogue._replace(message=message)
        return fit(self._service, dialogue, params.max_new_tokens)
