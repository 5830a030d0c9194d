"""A request's fields -> sampling parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from issun.runtime.constraint import Constraint
from issun.runtime.model import Model, make_params
from issun.runtime.sampling import SamplingParams
from issun.server.errors import ApiError
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
    model: Model, request: Sampling, *, max_tokens: int, logprobs: int, prompt_tokens: int
) -> list[SamplingParams]:
    """The parameters of each of the `n` answers; raises ApiError and ParameterError.

    With a seed the answers have that one and the next ones. An answer in a grammar ends within
    `max_tokens` and the context behind `prompt_tokens`. May take long, for a large grammar.
    """
    if request.stream_options and not request.stream:
        raise ApiError("stream_options needs stream to be true.")
    changes: dict[str, Any] = {
        name: value for name in _SAME if (value := getattr(request, name)) is not None
    }
    changes |= {"max_new_tokens": max_tokens, "logprobs": logprobs, "lookup": False}
    if request.min_tokens is not None:
        changes["min_new_tokens"] = request.min_tokens
    if request.stop is not None:
        changes["stop"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    if request.logit_bias:
        changes["logit_bias"] = {_id(key): bias for key, bias in request.logit_bias.items()}
    room = min(max_tokens, model.decoder.n_positions - prompt_tokens)
    changes["constraint"] = _constraint(model, request, max(1, room))
    params = make_params(model.manifest, **changes)
    return [_seeded(params, request.seed, place) for place in range(request.n or 1)]


def check_lengths(least: int | None, most: int | None) -> None:
    """Raise ApiError when an answer would have to be longer than it may."""
    if least is not None and most is not None and least > most:
        raise ApiError(
            "min_tokens is {least}, more than the {most} tokens that the answer may have.",
            least=least,
            most=most,
        )


def _seeded(params: SamplingParams, seed: int | None, place: int) -> SamplingParams:
    return params if seed is None else replace(params, seed=(seed + place) % (1 << 64))


def _id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        error = ApiError("logit_bias has the key {key!r}: it must be a token id.", key=key[:50])
        error.param = "logit_bias"
        raise error
    return int(key)


def _constraint(model: Model, request: Sampling, room: int) -> Constraint | None:
    wanted = request.response_format
    asked = [
        name
        for name, given in (
            ("response_format", wanted and wanted.type != "text"),
            ("choices", request.choices),
            ("regex", request.regex),
        )
        if given
    ]
    if len(asked) > 1:
        raise ApiError("Give one of {asked}, not both.", asked=" and ".join(asked))
    if request.choices:
        return model.constraints.choices(request.choices, room=room)
    if request.regex:
        return model.constraints.regex(request.regex, room=room)
    if wanted and wanted.type != "json_schema" and wanted.json_schema is not None:
        raise ApiError("response_format has a json_schema, but another type.")
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return model.constraints.json_schema({"type": "object"}, room=room)
    if wanted.json_schema is None:
        raise ApiError("response_format of type json_schema has no json_schema.")
    return model.constraints.json_schema(wanted.json_schema.schema, room=room)
