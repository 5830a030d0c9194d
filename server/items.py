"""`/v1/responses` is another spelling of `/v1/chat/completions`: its request -> that one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from msgspec import Meta

from issun.server import unused
from issun.server.body import convert, invalid, refused
from issun.server.errors import ApiError
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
from issun.server.unused import Check

_INCLUDED = ("reasoning.encrypted_content",)  # nothing here reasons
_MESSAGE = re.compile(r"messages\[(\d+)\](\.content\b)?")
_NAMES = (  # of the other dialect's fields, and of these
    (re.compile(r"^(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"^response_format\.json_schema$"), "text.format.schema"),
    (re.compile(r"^response_format\b"), "text.format"),
    (re.compile(r"^max_(completion_)?tokens$"), "max_output_tokens"),
)


class Source(NamedTuple):
    """The paths that a message and its content come from."""

    item: str
    content: str


class TextOptions(Body):
    """The form of an answer."""

    unused: ClassVar[Mapping[str, Check]] = unused.RESPONSES_TEXT

    format: ResponseFormat | None = None


class ResponsesStreamOptions(Body):
    """Nothing that has an effect here."""

    unused: ClassVar[Mapping[str, Check]] = unused.RESPONSES_STREAM


class ResponsesRequest(Body):
    """`/v1/responses`."""

    unused: ClassVar[Mapping[str, Check]] = unused.RESPONSES

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
    metadata: dict[str, Any] | None = None  # these two are given back
    user: str | None = None


class MessageItem(Body):
    """What somebody said."""

    unused: ClassVar[Mapping[str, Check]] = unused.MESSAGE

    role: str
    content: str | list[ContentPart | str] | None = None


class CallItem(Body):
    """An earlier call of a function."""

    unused: ClassVar[Mapping[str, Check]] = unused.ITEM

    name: str
    call_id: str
    type: str = "function_call"
    arguments: str = ""


class OutputItem(Body):
    """What a function gave back."""

    unused: ClassVar[Mapping[str, Check]] = unused.ITEM

    call_id: str
    type: str = "function_call_output"
    output: str | list[ContentPart | str] = ""
    name: str | None = None


class FunctionTool(Body):
    """A function that an answer may call."""

    unused: ClassVar[Mapping[str, Check]] = unused.FUNCTION_TOOL

    name: str
    type: str = "function"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def as_chat(asked: ResponsesRequest) -> tuple[ChatRequest, list[Source]]:
    """The request in the other dialect, and where each of its messages comes from.

    Raises ApiError with the path of what has no place there.
    """
    for number, name in enumerate(asked.include or ()):
        if name not in _INCLUDED:
            raise refused(f"include[{number}]", "{name!r} is not supported.", name=name[:50])
    if asked.truncation not in (None, "auto", "disabled"):
        raise invalid("truncation", "it must be auto or disabled.")
    messages, sources = _messages(asked)
    if not messages:
        raise invalid("input", "there is nothing to answer: send a text.")
    chat = ChatRequest(
        messages=messages,
        model=asked.model,
        max_completion_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        response_format=asked.text.format if asked.text else None,
        tools=_tools(asked.tools or ()),
        tool_choice=asked.tool_choice,
    )
    return chat, sources


def in_items(error: ApiError, sources: Sequence[Source]) -> ApiError:
    """An error about a request of the other dialect with the path in the one that came."""
    old = new = error.param or ""
    if found := _MESSAGE.match(old):
        source = sources[int(found[1])]
        new = (source.content if found[2] else source.item) + old[found.end() :]
    for pattern, name in _NAMES:
        new = pattern.sub(name, new)
    translated = type(error)("{message}", message=str(error).replace(old, new, 1))
    translated.param = new or None
    return translated


def _messages(asked: ResponsesRequest) -> tuple[list[Message], list[Source]]:
    found: list[tuple[Message, Source]] = []
    if asked.instructions:
        said = Message(role="system", content=asked.instructions)
        found.append((said, Source("instructions", "instructions")))
    if isinstance(asked.input, str):
        if asked.input:
            said = Message(role="user", content=asked.input)
            found.append((said, Source("input", "input")))
    else:
        for number, item in enumerate(asked.input):
            _add(found, item, f"input[{number}]")
    return [message for message, _ in found], [source for _, source in found]


def _add(found: list[tuple[Message, Source]], item: Mapping[str, Any], place: str) -> None:
    message = _message(item, place)
    if message is None:
        return
    if message.tool_calls and found and (made := found[-1][0].tool_calls):  # at the same time
        made += message.tool_calls
        return
    name = "output" if message.role == "tool" else "content"
    found.append((message, Source(place, f"{place}.{name}")))


def _message(item: Mapping[str, Any], place: str) -> Message | None:
    """The message of an item; None for reasoning, which is not read again."""
    kind = item.get("type") or "message"
    if kind == "reasoning":
        return None
    if kind == "message":
        said = convert(item, MessageItem, place)
        return Message(role=said.role, content=said.content)
    if kind == "function_call":
        made = convert(item, CallItem, place)
        call = FunctionCall(name=made.name, arguments=made.arguments)
        return Message(role="assistant", tool_calls=[ToolCall(id=made.call_id, function=call)])
    if kind == "function_call_output":
        found = convert(item, OutputItem, place)
        return Message(role="tool", tool_call_id=found.call_id, content=found.output)
    raise refused(
        f"{place}.type",
        "{kind!r} is not supported: only message, function_call and function_call_output are.",
        kind=str(kind)[:50],
    )


def _tools(given: Sequence[Mapping[str, Any]]) -> list[Tool]:
    tools = []
    for number, tool in enumerate(given):
        place = f"tools[{number}]"
        if tool.get("type", "function") != "function":
            kind = str(tool["type"])[:50]
            raise refused(
                f"{place}.type", "{kind!r} is not supported: only functions are.", kind=kind
            )
        found = convert(tool, FunctionTool, place)
        function = FunctionDefinition(
            name=found.name,
            description=found.description,
            parameters=found.parameters,
            strict=found.strict,
        )
        tools.append(Tool(function=function))
    return tools
