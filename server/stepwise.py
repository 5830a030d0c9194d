"""Answers that take several jobs, each of which depends on the output of the previous ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from issun.runtime.decoding.generate import Segment
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.text.prompt import FittedPrompt
from issun.server.answers import Job
from issun.server.fitting import fit
from issun.server.messages import Dialogue
from issun.server.sampling import tokens_left
from issun.server.service import Service


class Question:
    """A conversation to answer; makes the prompts of its steps, which may extend the message."""

    def __init__(self, service: Service, dialogue: Dialogue, adapter: str | None = None) -> None:
        self._service, self.dialogue, self._adapter = service, dialogue, adapter
        self._fitted: dict[tuple[str, int], FittedPrompt] = {}  # by added line and max_new_tokens

    @property
    def dropped_turns(self) -> int:
        """The largest number of old turns that a prompt leaves out."""
        return max((fitted.dropped_turns for fitted in self._fitted.values()), default=0)

    def room(self, params: SamplingParams) -> int:
        """How many tokens an answer to the unextended message may have."""
        return tokens_left(self._service.model, self.job(params).prompt, params)

    def job(self, params: SamplingParams, line: str = "") -> Job:
        """A job whose message ends with `line`; raises ContextError. Tokenizing may be slow."""
        key = line, params.max_new_tokens
        if key not in self._fitted:  # the answers of a request share their prompt
            message = "\n".join(filter(None, (self.dialogue.message, line)))
            dialogue = self.dialogue._replace(message=message)
            self._fitted[key] = fit(self._service, dialogue, params.max_new_tokens)
        fitted = self._fitted[key]
        return Job(
            fitted.ids,
            params,
            continued=fitted.continued,
            texts=self.dialogue.texts,
            adapter=self._adapter,
        )


class Steps(Protocol):
    """One answer that takes several jobs."""

    def start(self) -> Iterator[object]:
        """Events that do not need the model."""

    def job(self) -> Job | None:
        """The next job, after `start` or after the end of the previous job; None at the end."""

    def add(self, segment: Segment) -> Iterator[object]:
        """The events for a segment of the current job."""


class StepAnswers:
    """Answers that take several jobs, with the interface of `Answers`; `jobs` has the first."""

    def __init__(
        self,
        service: Service,
        steps: Sequence[Steps],
        jobs: Sequence[Job | None],
        *,
        streamed: bool,
    ) -> None:
        self._steps = steps
        self._indices = [index for index, job in enumerate(jobs) if job]
        self._answers = service.answers([job for job in jobs if job], streamed=streamed)

    @property
    def stalled(self) -> bool:
        """Whether the client seems to have stopped reading."""
        return self._answers.stalled

    async def __aiter__(self) -> AsyncIterator[tuple[int, object]]:
        """Events until all answers have ended; raises the error of the first that failed."""
        for index, steps in enumerate(self._steps):
            for event in steps.start():
                yield index, event
        begun: set[int] = set()  # answers whose first prompt has been processed
        async for number, event in self._answers:
            index = self._indices[number]
            steps = self._steps[index]
            if not isinstance(event, Segment):
                if index not in begun:
                    yield index, event
                continue
            begun.add(index)
            for made in steps.add(event):
                yield index, made
            if event.finish_reason and (job := await run_in_threadpool(steps.job)):
                self._answers.resume(number, job)

    def close(self) -> None:
        """Cancel the jobs that have not ended."""
        self._answers.close()
