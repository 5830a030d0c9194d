"""What clients send, as the OpenAI dialect spells it; what is not here is refused.

Fields of issun's own: `top_k`, `min_p`, `typical_p`, `repetition_penalty`, `min_tokens`,
`choices`, `regex` and `progress`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

_Count = Annotated[int, Meta(ge=1, le=1 << 31)]
_Id = Annotated[int, Meta(ge=0, le=1 << 31)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Text = Annotated[str, Meta(min_length=1)]
_Stop = _Text | Annotated[list[_Text], Meta(max_length=16)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """Whether a last chunk tells the usage."""

    include_usage: bool = False


class JsonSchema(Struct, forbid_unknown_fields=True):
    """A schema with the name that the client gives it."""

    schema: dict[str, Any]
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True):
    """Free text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Sampling(Struct, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of answers can be told; null is the bundle's default."""

    model: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=1 << 31)] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: _Stop | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # names the end user; kept nowhere
    response_format: ResponseFormat | None = None
    choices: Annotated[list[_Text], Meta(min_length=1, max_length=1000)] | None = None
    regex: _Text | None = None
    progress: bool = False


class ContentPart(Struct, forbid_unknown_fields=True):
    """A piece of a message; only text is known."""

    type: str
    text: str | UnsetType = UNSET
    image_url: Any = UNSET
    input_audio: Any = UNSET
    file: Any = UNSET
    refusal: Any = UNSET


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None  # of a speaker; the prompt has no place for it
    refusal: str | None = None


class ChatRequest(Sampling, forbid_unknown_fields=True, kw_only=True):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=10_000)]
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class CompletionRequest(Sampling, forbid_unknown_fields=True, kw_only=True):
    """`/v1/completions`: text or ids as they are, in no template."""

    prompt: str | Annotated[list[int | str | list[_Id]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=1 << 31)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`/tokenize`: a text, or messages as the model's prompt has them."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=10_000)] | None = None


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`/detokenize`."""

    model: str | None = None
    tokens: Annotated[list[_Id], Meta(max_length=1 << 20)]
