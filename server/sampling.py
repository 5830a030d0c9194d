"""Converts a request's fields to sampling parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from issun.runtime.constraint.matching import Constraint
from issun.runtime.decoding.sampling import SamplingParams, seeded
from issun.runtime.defaults import SWITCHED, make_params
from issun.runtime.errors import ParameterError
from issun.runtime.model import Model
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

    With a seed, answer i gets seed + i.
    """
    changes: dict[str, Any] = {
        name: value for name in _SAME if (value := getattr(request, name)) is not None
    }
    if request.top_k == -1:
        changes["top_k"] = 0
    if request.top_n_sigma is not None:
        changes["top_n_sigma"] = max(0.0, request.top_n_sigma)
    changes |= _switched(model, request)
    changes |= {"max_new_tokens": max_tokens, "logprobs": logprobs}
    if request.min_tokens is not None:
        changes["min_new_tokens"] = request.min_tokens
    if request.stop:
        changes["stop"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    if request.logit_bias:
        changes["logit_bias"] = {_id(key): bias for key, bias in request.logit_bias.items()}
    if request.ignore_eos:
        changes["min_new_tokens"] = max_tokens
    if request.seed is not None:
        changes["seed"] = request.seed % (1 << 64)
    params = make_params(model.manifest, **changes)
    return [seeded(params, index) for index in range(request.n or 1)]


def _switched(model: Model, request: Sampling) -> dict[str, Any]:
    """The fields of the filters that are on, by the request or else by the bundle's default.

    Clients send those of the others with any value.
    """
    changes: dict[str, Any] = {}
    for switch, *others in SWITCHED:
        wanted = getattr(request, switch)
        if getattr(model.default_params, switch) if wanted is None else wanted:
            given = {name: getattr(request, name) for name in (switch, *others)}
            changes |= {name: value for name, value in given.items() if value is not None}
        elif wanted is not None:
            changes[switch] = 0
    if isinstance(changes.get("dry_sequence_breakers"), str):
        raise invalid("dry_sequence_breakers", "it must be a list of texts.")
    return changes


def requested_max_tokens(model: Model, request: Sampling) -> int | None:
    """The maximum number of tokens of an answer, None if the request has none.

    Raises ApiError for two different maxima, and for a minimum above the maximum.
    """
    given = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(given) > 1:
        raise invalid(
            "max_tokens",
            "it is {old}, but max_completion_tokens {new}: give one of them.",
            old=request.max_tokens,
            new=request.max_completion_tokens,
        )
    maximum = given.pop() if given else None
    if maximum == -1:
        maximum = model.decoder.n_positions
    if request.min_tokens is not None and maximum is not None and request.min_tokens > maximum:
        raise invalid(
            "min_tokens",
            "it is {least}, more than the maximum of {maximum} tokens.",
            least=request.min_tokens,
            maximum=maximum,
        )
    return maximum


def _id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        raise invalid("logit_bias", "the key {key!r} must be a token id.", key=key[:50])
    return int(key)


def check_ignore_eos(request: Sampling, path: str) -> None:
    """Raise ApiError for `ignore_eos` together with the output format that `path` asks for."""
    if request.ignore_eos:
        raise invalid("ignore_eos", "an answer with {form} ends where its format does.", form=path)


def tokens_left(model: Model, prompt: Sequence[int], params: SamplingParams) -> int:
    """The maximum length of an answer after `prompt`, at least 1."""
    return max(1, min(params.max_new_tokens, model.decoder.n_positions - len(prompt)))


def make_constraint(model: Model, output_format: Format, room: int) -> Constraint:
    """The grammar of a form in `room` tokens; raises ApiError with its path. May take seconds."""
    make: dict[str, Callable[..., Constraint]] = {
        "schema": model.constraints.json_schema,
        "regex": model.constraints.regex,
        "choices": model.constraints.choices,
    }
    try:
        return make[output_format.kind](output_format.value, max_tokens=room)
    except ParameterError as error:
        raise invalid(output_format.path, "{reason}", reason=error) from error
