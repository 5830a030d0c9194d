"""Beam search, and the best of several samples, for `issun generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from issun.cli.language import tr
from issun.cli.options import NOT_WITH, ONLY_WITH, refuse
from issun.runtime import BeamParams, Completion, Model, ParameterError, SamplingParams
from issun.runtime.decoding.best_of import sample_params
from issun.runtime.defaults import make_beam_params, make_params

Beams = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help=tr("Find the answer by beam search with this many beams, without randomness."),
        show_default=False,
    ),
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(
        help=tr("With --beams: above 0, longer answers win more often (default: 1)."),
        show_default=False,
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--n",
        metavar="N",
        help=tr("Print so many answers, the likeliest first; with --json, a list."),
        show_default=False,
    ),
]
BestOf = Annotated[
    int | None,
    typer.Option(
        metavar="N", help=tr("Sample so many answers to choose from."), show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class NBest:
    """What was asked for; all None for the one answer that is streamed."""

    beams: int | None
    length_penalty: float | None
    n: int | None
    best_of: int | None

    def given(self) -> list[str]:
        """The options that were given."""
        values = {
            "--beams": self.beams,
            "--length-penalty": self.length_penalty,
            "--n": self.n,
            "--best-of": self.best_of,
        }
        return [name for name, value in values.items() if value is not None]

    def check(self, sampling: dict[str, Any], constraint: str | None) -> None:
        """Raise ParameterError for values out of range, and for options that exclude each other."""
        if not self.given():
            return
        excluded = [f"--{constraint.replace('_', '-')}"] if constraint else []
        if self.beams is not None and self.best_of is not None:
            excluded.append("--best-of")
        if excluded:
            refuse(NOT_WITH, {self.given()[0]: True}, other=excluded[0])
        if self.beams is not None:
            if self.n is not None and self.n > self.beams >= 1:
                raise ParameterError(
                    "--n is {count}, it must be at most --beams, which is {beams}.",
                    count=self.n,
                    beams=self.beams,
                )
            limit = max(SamplingParams().max_new_tokens, sampling.get("min_new_tokens", 0))
            BeamParams(**{"max_new_tokens": limit} | sampling | self._beam_fields())
        elif self.length_penalty is not None:
            refuse(ONLY_WITH, {"--length-penalty": True}, other="--beams")
        else:
            sample_params(SamplingParams(), self._count, self.best_of)

    def answers(
        self, model: Model, prompt: Sequence[int], sampling: dict[str, Any]
    ) -> list[Completion]:
        """Return the answers, the best first."""
        if self.beams is None:
            params = make_params(model.manifest, **sampling)
            return model.sample_n(prompt, params, n=self._count, best_of=self.best_of)
        beams = make_beam_params(model.manifest, **sampling, **self._beam_fields())
        return model.beam_search(prompt, beams)

    @property
    def _count(self) -> int:
        return 1 if self.n is None else self.n

    def _beam_fields(self) -> dict[str, Any]:
        fields = {
            "num_beams": self.beams,
            "length_penalty": self.length_penalty,
            "num_return_sequences": self.n,
        }
        return {name: value for name, value in fields.items() if value is not None}
