"""The types of request bodies, as in the OpenAI API.

issun's own fields are `top_k`, `min_p`, `typical_p`, `repetition_penalty`, `min_tokens`, `choices`,
`regex` and `progress`; from `top_n_sigma` to `mirostat_eta` they are llama.cpp's. `ignored` has the
fields that are accepted without effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from issun.server import ignored
from issun.server.ignored import Check

_Count = Annotated[int, Meta(ge=0, le=1 << 31)]
_Limit = Annotated[int, Meta(ge=-1, le=1 << 31)]  # -1: as many as fit
_Id = Annotated[int, Meta(ge=0, le=1 << 31)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Text = Annotated[str, Meta(min_length=1)]
_Texts = Annotated[list[_Text], Meta(max_length=1000)]
_Stop = str | Annotated[list[_Text], Meta(max_length=16)]
_Schema = dict[str, Any]


class Body(Struct):
    """Base of all request bodies; `ignored` has the fields that are accepted without effect."""

    ignored: ClassVar[Mapping[str, Check]] = {}


class StreamOptions(Body):
    """Whether the last chunk, or every chunk, contains the usage."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class ResponseFormat(Body):
    """Free text, any JSON object, or JSON that follows a schema, given in one of several fields."""

    type: str = "text"
    json_schema: _Schema | None = None
    schema: _Schema | None = None
    response_schema: _Schema | None = None  # as LiteLLM spells it for Gemini
    name: str | None = None  # `name`, `description` and `strict` do not affect the grammar
    description: str | None = None
    strict: bool | None = None


class StructuredOutputs(Body):
    """A constraint as vLLM spells it."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.STRUCTURED_OUTPUTS

    json: str | _Schema | None = None
    regex: str | None = None
    choice: _Texts | None = None
    json_object: bool | None = None


class Sampling(Body):
    """The parameters of chat and text completions; null means the bundle's default."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.SAMPLING

    model: str | None = None
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    min_tokens: _Count | None = None
    ignore_eos: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: _Limit | None = None  # 0 and -1: off
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1, le=100)] | None = None  # 0 and below: off
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: str | Annotated[list[str], Meta(max_length=100)] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: _Stop | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    choices: _Texts | None = None
    regex: str | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | _Schema | None = None
    guided_regex: str | None = None
    guided_choice: _Texts | None = None
    response_schema: _Schema | None = None
    json_schema: _Schema | None = None
    progress: bool = False


class ContentPart(Body):
    """A part of a message; parts other than text are rejected."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.PART

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None


class FunctionCall(Body, kw_only=True):
    """A function call; its arguments are a JSON object, usually as text."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.FUNCTION_CALL

    name: str
    arguments: str | _Schema = ""


class ToolCall(Body, kw_only=True):
    """A tool call, which a message of role `tool` refers to by its id."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.TOOL_CALL

    function: FunctionCall
    id: str | None = None
    type: str = "function"


class Message(Body, kw_only=True):
    """One message of a conversation."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.MESSAGE

    role: str
    content: str | list[ContentPart | str] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None


class FunctionDefinition(Body, kw_only=True):
    """A function that an answer may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: _Schema | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool that an answer may call; only functions are supported."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.TOOL

    type: str = "function"
    function: FunctionDefinition | None = None


Messages = Annotated[list[Message], Meta(min_length=1, max_length=10_000)]


class ChatRequest(Sampling, kw_only=True):
    """`/v1/chat/completions`."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.CHAT

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: str | dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class CompletionRequest(Sampling, kw_only=True):
    """`/v1/completions`: text or token ids, without a template."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.COMPLETION

    prompt: str | Annotated[list[int | str | list[_Id]], Meta(min_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None


class TokenizeRequest(Body):
    """`/tokenize`: a text, or messages, from which the model's prompt is made."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.TOKENIZE

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(Body, kw_only=True):
    """`/detokenize`."""

    model: str | None = None
    tokens: Annotated[list[_Id], Meta(max_length=1 << 20)]
