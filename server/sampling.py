"""A request's fields -> sampling parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from issun.runtime.constraint import Constraint
from issun.runtime.defaults import make_params
from issun.runtime.errors import ParameterError
from issun.runtime.model import Model
from issun.runtime.sampling import SamplingParams
from issun.server.body import invalid
from issun.server.formats import Format
from issun.server.types import Sampling

_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


def sampling_params(
    model: Model,
    request: Sampling,
    *,
    max_tokens: int,
    logprobs: int,
    constraint: Constraint | None = None,
) -> list[SamplingParams]:
    """The parameters of each of the `n` answers; raises ApiError and ParameterError.

    With a seed the answers have that one and the next ones.
    """
    changes: dict[str, Any] = {
        name: value for name in _SAME if (value := getattr(request, name)) is not None
    }
    if request.top_k == -1:
        changes["top_k"] = 0
    changes |= {"max_new_tokens": max_tokens, "logprobs": logprobs, "lookup": False}
    if request.min_tokens is not None:
        changes["min_new_tokens"] = request.min_tokens
    if request.stop:
        changes["stop"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    if request.logit_bias:
        changes["logit_bias"] = {_id(key): bias for key, bias in request.logit_bias.items()}
    if request.ignore_eos:
        changes["min_new_tokens"] = max_tokens
    params = make_params(model.manifest, **changes)
    return [_seeded(params, request.seed, place) for place in range(request.n or 1)]


def most_tokens(model: Model, request: Sampling) -> int | None:
    """How many tokens an answer may have, None where a request does not say.

    Raises ApiError where it says two things, or wants more tokens than that.
    """
    given = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(given) > 1:
        raise invalid(
            "max_tokens",
            "it is {old}, but max_completion_tokens {new}: give one of them.",
            old=request.max_tokens,
            new=request.max_completion_tokens,
        )
    most = given.pop() if given else None
    if most == -1:
        most = model.decoder.n_positions
    if request.min_tokens is not None and most is not None and request.min_tokens > most:
        raise invalid(
            "min_tokens",
            "it is {least}, more than the {most} tokens that the answer may have.",
            least=request.min_tokens,
            most=most,
        )
    return most


def _seeded(params: SamplingParams, seed: int | None, place: int) -> SamplingParams:
    return params if seed is None else replace(params, seed=(seed + place) % (1 << 64))


def _id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        raise invalid("logit_bias", "the key {key!r} must be a token id.", key=key[:50])
    return int(key)


def check_ends(request: Sampling, place: str) -> None:
    """Raise ApiError when an answer with the form that `place` asks for is not to end."""
    if request.ignore_eos:
        raise invalid("ignore_eos", "an answer of {form} ends where its form does.", form=place)


def room_behind(model: Model, prompt: Sequence[int], params: SamplingParams) -> int:
    """How many tokens an answer may have behind `prompt`, and 1 at least."""
    return max(1, min(params.max_new_tokens, model.decoder.n_positions - len(prompt)))


def make_constraint(model: Model, wanted: Format, room: int) -> Constraint:
    """The grammar of a form in `room` tokens; raises ApiError with its path. May take seconds."""
    make: dict[str, Callable[..., Constraint]] = {
        "schema": model.constraints.json_schema,
        "regex": model.constraints.regex,
        "choices": model.constraints.choices,
    }
    try:
        return make[wanted.kind](wanted.value, max_tokens=room)
    except ParameterError as error:
        raise invalid(wanted.place, "{reason}", reason=error) from error
