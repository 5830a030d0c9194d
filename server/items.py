"""Converts `/v1/responses` requests to `/v1/chat/completions` requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from msgspec import Meta

from issun.server import ignored
from issun.server.body import convert, invalid, unsupported
from issun.server.errors import ApiError
from issun.server.ignored import Check
from issun.server.types import (
    Body,
    ChatRequest,
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    Message,
    ResponseFormat,
    Tool,
    ToolCall,
)

_INCLUDED = ("reasoning.encrypted_content",)  # the model does not reason
_MESSAGE = re.compile(r"messages\[(\d+)\](\.content\b)?")
_NAMES = (  # fields of /v1/chat/completions and of /v1/responses
    (re.compile(r"^(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"^response_format\.json_schema$"), "text.format.schema"),
    (re.compile(r"^response_format\b"), "text.format"),
    (re.compile(r"^max_(completion_)?tokens$"), "max_output_tokens"),
)


class Source(NamedTuple):
    """The paths of the item and the content that a message was made from."""

    item: str
    content: str


class TextOptions(Body):
    """The output format."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.RESPONSES_TEXT

    format: ResponseFormat | None = None


class ResponsesStreamOptions(Body):
    """Options without an effect here."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.RESPONSES_STREAM


class ResponsesRequest(Body):
    """`/v1/responses`."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.RESPONSES

    model: str | None = None
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=1 << 31)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    truncation: str | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    metadata: dict[str, Any] | None = None  # this and `user` are returned in the response
    user: str | None = None


class MessageItem(Body):
    """A message."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.MESSAGE

    role: str
    content: str | list[ContentPart | str] | None = None


class CallItem(Body):
    """An earlier call of a function."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.ITEM

    name: str
    call_id: str
    type: str = "function_call"
    arguments: str = ""


class OutputItem(Body):
    """The result of a function call."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.ITEM

    call_id: str
    type: str = "function_call_output"
    output: str | list[ContentPart | str] = ""
    name: str | None = None


class FunctionTool(Body):
    """A function that an answer may call."""

    ignored: ClassVar[Mapping[str, Check]] = ignored.FUNCTION_TOOL

    name: str
    type: str = "function"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def as_chat(body: ResponsesRequest) -> tuple[ChatRequest, list[Source]]:
    """The chat request, and the source of each of its messages.

    Raises ApiError with the path of what a chat request cannot express.
    """
    for number, name in enumerate(body.include or ()):
        if name not in _INCLUDED:
            raise unsupported(f"include[{number}]", "{name!r} is not supported.", name=name[:50])
    if body.truncation not in (None, "auto", "disabled"):
        raise invalid("truncation", "it must be auto or disabled.")
    messages, sources = _messages(body)
    if not messages:
        raise invalid("input", "there is nothing to answer: send a text.")
    chat = ChatRequest(
        messages=messages,
        model=body.model,
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        response_format=body.text.format if body.text else None,
        tools=_tools(body.tools or ()),
        tool_choice=body.tool_choice,
    )
    return chat, sources


def with_responses_paths(error: ApiError, sources: Sequence[Source]) -> ApiError:
    """The error of a chat request with its path replaced by that in the original request."""
    old = new = error.param or ""
    if found := _MESSAGE.match(old):
        source = sources[int(found[1])]
        new = (source.content if found[2] else source.item) + old[found.end() :]
    for pattern, name in _NAMES:
        new = pattern.sub(name, new)
    translated = type(error)("{message}", message=str(error).replace(old, new, 1))
    translated.param = new or None
    return translated


def _messages(body: ResponsesRequest) -> tuple[list[Message], list[Source]]:
    found: list[tuple[Message, Source]] = []
    if body.instructions:
        message = Message(role="system", content=body.instructions)
        found.append((message, Source("instructions", "instructions")))
    if isinstance(body.input, str):
        if body.input:
            message = Message(role="user", content=body.input)
            found.append((message, Source("input", "input")))
    else:
        for number, item in enumerate(body.input):
            _add(found, item, f"input[{number}]")
    return [message for message, _ in found], [source for _, source in found]


def _add(found: list[tuple[Message, Source]], item: Mapping[str, Any], path: str) -> None:
    message = _message(item, path)
    if message is None:
        return
    if message.tool_calls and found and (made := found[-1][0].tool_calls):  # parallel calls
        made += message.tool_calls
        return
    name = "output" if message.role == "tool" else "content"
    found.append((message, Source(path, f"{path}.{name}")))


def _message(item: Mapping[str, Any], path: str) -> Message | None:
    """The message of an item; None for reasoning, which is ignored."""
    kind = item.get("type") or "message"
    if kind == "reasoning":
        return None
    if kind == "message":
        message = convert(item, MessageItem, path)
        return Message(role=message.role, content=message.content)
    if kind == "function_call":
        made = convert(item, CallItem, path)
        call = FunctionCall(name=made.name, arguments=made.arguments)
        return Message(role="assistant", tool_calls=[ToolCall(id=made.call_id, function=call)])
    if kind == "function_call_output":
        found = convert(item, OutputItem, path)
        return Message(role="tool", tool_call_id=found.call_id, content=found.output)
    raise unsupported(
        f"{path}.type",
        "{kind!r} is not supported: only message, function_call and function_call_output are.",
        kind=str(kind)[:50],
    )


def _tools(given: Sequence[Mapping[str, Any]]) -> list[Tool]:
    tools = []
    for number, tool in enumerate(given):
        path = f"tools[{number}]"
        if tool.get("type", "function") != "function":
            kind = str(tool["type"])[:50]
            raise unsupported(
                f"{path}.type", "{kind!r} is not supported: only functions are.", kind=kind
            )
        found = convert(tool, FunctionTool, path)
        function = FunctionDefinition(
            name=found.name,
            description=found.description,
            parameters=found.parameters,
            strict=found.strict,
        )
        tools.append(Tool(function=function))
    return tools
