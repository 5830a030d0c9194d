"""Turns rows into requests of the OpenAI API, and its responses into output lines.

A row of kind `batch` is a line of OpenAI's batch format, and so is its output line. A row of kind
`simple` has `prompt`, or `instruction` and perhaps `input`, or the fields of a template; its output
line is the row with the fields `RESULTS`.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from issun.runtime.errors import ParameterError
from issun.runtime.files import decode_utf8
from issun.server.body import invalid, parse
from issun.server.errors import ApiError, InternalError, error_object
from issun.server.types import CompletionRequest

Kind = Literal["batch", "simple"]
MakePrompt = Callable[[str, str | None], list[int]]

RESULTS = ("generated_text", "finish_reason", "status", "error")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_URLS = (CHAT, COMPLETIONS)
_PREFIXES = {CHAT: "chatcmpl", COMPLETIONS: "cmpl"}
# Sampling parameters by their names in the API.
FIELDS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "top_n_sigma": "top_n_sigma",
    "dynatemp_range": "dynatemp_range",
    "dynatemp_exponent": "dynatemp_exponent",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "dry_multiplier": "dry_multiplier",
    "dry_base": "dry_base",
    "dry_allowed_length": "dry_allowed_length",
    "dry_penalty_last_n": "dry_penalty_last_n",
    "dry_sequence_breakers": "dry_sequence_breakers",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "min_new_tokens": "min_tokens",
    "max_new_tokens": "max_tokens",
    "stop": "stop",
}


class Request(NamedTuple):
    """A request of the application."""

    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """A text with fields such as `{title}`, which a row fills; raises ParameterError."""

    text: str

    def __post_init__(self) -> None:
        """Check the braces."""
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ParameterError(
                "The template is malformed: {reason}. Write {{{{ and }}}} for braces.",
                reason=error,
            ) from error
        if any(name == "" or spec or conversion for _, name, spec, conversion in parts):
            raise ParameterError("A field of the template must be a name in braces.")
        if not any(name for _, name, _, _ in parts):
            raise ParameterError("The template has no fields, such as {{instruction}}.")

    @property
    def names(self) -> list[str]:
        """The names of its fields."""
        return [name for _, name, _, _ in string.Formatter().parse(self.text) if name]

    def fill(self, row: Mapping[str, Any]) -> str:
        """Return the text for a row; raises ApiError for a field that is missing or null."""
        filled = []
        for text, name, _, _ in string.Formatter().parse(self.text):
            filled.append(text)
            if name:
                if (value := row.get(name)) is None:
                    raise invalid(name, "the template needs this field.")
                filled.append(str(value))
        return "".join(filled)


def body_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling parameters as fields of a request's body.

    Raises ApiError for values that the API does not allow.
    """
    fields = {FIELDS[name]: plain(value) for name, value in params.items()}
    parse(msgspec.json.encode({**fields, "prompt": "-"}), CompletionRequest)
    return fields


def plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, which JSON has; any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def kind_of(row: Any, *, template: bool = False) -> Kind | None:
    """Which kind a row has by its fields; None if they do not tell.

    Fields of other data can be named `url` and `body` too, and those of a template in any way: with
    one, only a row that cannot be anything else is a request.
    """
    if not isinstance(row, dict):
        return None
    has_body = isinstance(row.get("body"), dict)
    has_url = str(row.get("url")).startswith("/v1/")
    if has_body and has_url:
        return "batch"
    if template or {"prompt", "instruction"} & row.keys():
        return "simple"
    named = "custom_id" in row and (has_body or row.get("method") == "POST")
    return "batch" if has_url or named else None


def kind_in(file: Kind, row: Mapping[str, Any]) -> Kind:
    """The kind of a row in a file of a kind: one with whole requests may have simple rows too."""
    return "simple" if file == "simple" or kind_of(row) == "simple" else "batch"


def decode_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with text instead of bytes, which some programs write for it.

    Bytes that are no text in UTF-8 become None: in a prompt they would be noise.
    """
    return {
        name: _decode(value) if isinstance(value, bytes) else value for name, value in row.items()
    }


def _decode(raw: bytes) -> str | None:
    try:
        return decode_utf8(raw)
    except UnicodeDecodeError:
        return None


def decode(raw: bytes) -> dict[str, Any]:
    """Return the fields of a row; raises ApiError if it is not an object in JSON."""
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("The row is not JSON: {reason}", reason=str(error)) from error
    if not isinstance(row, dict):
        raise ApiError("The row is not an object in JSON.")
    return row


def digest_of(seed: int, index: int, row: Mapping[str, Any]) -> str:
    """Return what the seed and ids of a row are made from: its `custom_id`, or else its index."""
    name = row.get("custom_id")
    if name in (None, ""):  # as in an empty cell of a table
        name = index
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def batch_request(row: Mapping[str, Any], defaults: Mapping[str, Any], digest: str) -> Request:
    """Return the request of a line in OpenAI's batch format; raises ApiError."""
    if not isinstance(row.get("custom_id"), str) or not row["custom_id"]:
        raise invalid("custom_id", "it must be a text.")
    if row.get("method", "POST") != "POST":
        raise invalid("method", "it is {value!r}, it must be POST.", value=str(row["method"])[:20])
    if row.get("url") not in _URLS:
        raise invalid(
            "url",
            "it is {value!r}, it must be one of {known}.",
            value=str(row.get("url"))[:100],
            known=", ".join(_URLS),
        )
    body = row.get("body")
    if not isinstance(body, dict):
        raise invalid("body", "it must be an object.")
    if body.get("stream"):
        raise invalid("body.stream", "a batch has no streams: leave it out.")
    given = {name: value for name, value in body.items() if value is not None}
    if "max_completion_tokens" in given:
        defaults = {name: value for name, value in defaults.items() if name != "max_tokens"}
    return Request(row["url"], {**defaults, "seed": _seed(digest), **given})


def simple_request(
    row: Mapping[str, Any],
    defaults: Mapping[str, Any],
    digest: str,
    template: Template | None,
    make_prompt: MakePrompt,
) -> Request:
    """Return the request of a row with a prompt, an instruction or a template's fields.

    Raises ApiError.
    """
    for name in RESULTS:
        if name in row:
            raise invalid(name, "the output has a field of this name: rename it.")
    prompt: Any = row.get("prompt")
    instructed = row.get("instruction") not in (None, "")
    if not template and instructed and prompt not in (None, ""):
        raise invalid("prompt", "give either a prompt or an instruction.")
    if template or prompt is None or (instructed and prompt == ""):
        instruction = template.fill(row) if template else row.get("instruction")
        if not isinstance(instruction, str) or not instruction.strip():
            raise invalid("instruction", "there is neither an instruction nor a prompt.")
        input_text = None if template else row.get("input")
        if not isinstance(input_text, str | None):
            raise invalid("input", "it must be a text.")
        prompt = make_prompt(instruction, input_text or None)
    elif not isinstance(prompt, str):
        raise invalid("prompt", "it must be a text.")
    return Request(COMPLETIONS, {**defaults, "seed": _seed(digest), "prompt": prompt})


def output_line(
    kind: Kind, row: Mapping[str, Any], digest: str, status: int, body: dict[str, Any]
) -> bytes:
    """Return the output line of a row, without anything that depends on when or where it ran."""
    if kind == "batch":
        if status == 200:
            body = _reproducible(row["url"], digest, body)
        response = {"status_code": status, "request_id": f"req_{digest[:32]}", "body": body}
        return msgspec.json.encode(
            {
                "id": f"batch_req_{digest[:32]}",
                "custom_id": row.get("custom_id"),
                "response": response,
                "error": None,
            }
        )
    choice = body["choices"][0] if status == 200 else {}
    error = body["error"]["message"] if status != 200 else None
    values = (choice.get("text"), choice.get("finish_reason"), status, error)
    return msgspec.json.encode({**row, **dict(zip(RESULTS, values, strict=True))})


def make_error_line(kind: Kind, seed: int, index: int, raw: bytes) -> bytes:
    """Return the output line of a row that ended every worker that tried it."""
    try:
        row = decode(raw)
    except ApiError:
        row = {}
    kind = kind_in(kind, row)
    error = InternalError("Every worker that answered this row ended.")
    return output_line(kind, row, digest_of(seed, index, row), error.status, error_object(error))


def _reproducible(url: str, digest: str, body: dict[str, Any]) -> dict[str, Any]:
    for choice in body["choices"]:
        for index, call in enumerate(choice.get("message", {}).get("tool_calls") or ()):
            call["id"] = f"call_{digest[:20]}{choice['index']:02d}{index:02d}"
    usage = {k: v for k, v in body["usage"].items() if k != "prompt_tokens_details"}
    kept = {k: v for k, v in body.items() if k != "issun"}
    derived = {"id": f"{_PREFIXES[url]}-{digest[:32]}", "created": 0}  # clients need both
    return {**kept, **derived, "usage": usage}


def _seed(digest: str) -> int:
    return int(digest[:15], 16)  # the API's seeds have 63 bits
