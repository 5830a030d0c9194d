"""Answers that take several steps: what is asked next depends on what was answered before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from issun.runtime.generate import Segment
from issun.runtime.prompt import FittedPrompt
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Job
from issun.server.fitting import fit
from issun.server.messages import Dialogue
from issun.server.sampling import room_behind
from issun.server.service import Service


class Question:
    """A conversation that is answered, and its prompts with what a step adds to the message."""

    def __init__(self, service: Service, dialogue: Dialogue) -> None:
        self._service, self.dialogue = service, dialogue
        self._fitted: dict[tuple[str, int], FittedPrompt] = {}  # by line and length of the answer

    @property
    def dropped_turns(self) -> int:
        """How many old turns the prompts leave out, at most."""
        return max((fitted.dropped_turns for fitted in self._fitted.values()), default=0)

    def room(self, params: SamplingParams) -> int:
        """How many tokens an answer to the message alone may have."""
        return room_behind(self._service.model, self.job(params).prompt, params)

    def job(self, params: SamplingParams, line: str = "") -> Job:
        """A job with `line` behind the message; raises ContextError. Encodes, which may be slow."""
        key = line, params.max_new_tokens
        if key not in self._fitted:  # the several answers of a request begin alike
            message = "\n".join(filter(None, (self.dialogue.message, line)))
            dialogue = self.dialogue._replace(message=message)
            self._fitted[key] = fit(self._service, dialogue, params.max_new_tokens)
        fitted = self._fitted[key]
        return Job(fitted.ids, params, continued=fitted.continued)


class Steps(Protocol):
    """One answer that is made in steps."""

    def start(self) -> Iterator[object]:
        """Events that need no model."""

    def job(self) -> Job | None:
        """What is asked next, after `start` or when the latest job has ended; None at the end."""

    def add(self, segment: Segment) -> Iterator[object]:
        """Take a segment of the latest job; gives the events that it becomes."""


class StepAnswers:
    """Answers that are made in steps, with the face of `Answers`; `jobs` are the first ones."""

    def __init__(
        self, service: Service, steps: Sequence[Steps], jobs: Sequence[Job | None]
    ) -> None:
        self._steps = steps
        self._places = [place for place, job in enumerate(jobs) if job]
        self._answers = service.answers([job for job in jobs if job])

    @property
    def unread(self) -> bool:
        """Whether so many events wait, for so long, that nobody seems to read them."""
        return self._answers.unread

    async def __aiter__(self) -> AsyncIterator[tuple[int, object]]:
        """Events until all answers have ended; raises the error of the first that failed."""
        for place, steps in enumerate(self._steps):
            for event in steps.start():
                yield place, event
        begun: set[int] = set()  # whose first prompt is read
        async for number, event in self._answers:
            place = self._places[number]
            steps = self._steps[place]
            if not isinstance(event, Segment):
                if place not in begun:
                    yield place, event
                continue
            begun.add(place)
            for made in steps.add(event):
                yield place, made
            if event.finish_reason and (job := await run_in_threadpool(steps.job)):
                self._answers.resume(number, job)

    def close(self) -> None:
        """Give up what has not ended."""
        self._answers.close()
