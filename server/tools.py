"""Determines from `tools` and `tool_choice` which functions an answer may call.

A call is only made if the request requires one: with `auto` the answer is text. The schemas are not
part of the prompt; they constrain the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from issun.server.body import invalid, unsupported
from issun.server.types import ChatRequest, FunctionDefinition, Message

_COMBINED = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")
_SILENT = {
    *("type", "properties", "required", "additionalProperties", "title", "description", "$schema"),
}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called; `path` is the path of its schema in the body."""

    name: str
    description: str
    parameters: dict[str, Any]  # the JSON schema of an object
    path: str


@dataclass(frozen=True, slots=True)
class Calling:
    """The functions of which each answer calls one; `named` if the request names the function."""

    functions: tuple[Function, ...]
    named: bool = False
    legacy: bool = False  # requested with `function_call` and answered in that field


def required_calls(body: ChatRequest) -> Calling | None:
    """The call that a request requires; None if the answer is text.

    Raises ApiError with the path of a tool that is not a function, or of an invalid choice.
    """
    legacy = bool(body.functions or body.function_call)
    if legacy and (body.tools or body.tool_choice):
        raise invalid("functions", "give these or tools and tool_choice, not both.")
    functions = _legacy_functions(body) if legacy else _functions(body)
    if legacy:
        names, named = _names(body.function_call, "function_call", functions)
    else:
        names, named = _names(body.tool_choice, "tool_choice", functions)
    if not names:
        return None
    names = _without_called(names, body.messages)
    return Calling(tuple(functions[name] for name in names), named, legacy)


def _without_called(names: list[str], messages: Sequence[Message]) -> list[str]:
    """`names` without those called since the user's last message, unless that leaves none.

    Otherwise a small model calls the same function again and again, and an agent that requires
    calls never reaches the one that ends its loop.
    """
    called: set[str] = set()
    for message in reversed(messages):
        if message.role == "user":
            break
        called |= {call.function.name for call in message.tool_calls or ()}
        called |= {message.function_call.name} if message.function_call else set()
    return [name for name in names if name not in called] or names


def _functions(body: ChatRequest) -> dict[str, Function]:
    found: dict[str, Function] = {}
    for number, tool in enumerate(body.tools or ()):
        path = f"tools[{number}]"
        if tool.type != "function":
            raise unsupported(
                f"{path}.type", "{kind!r} is not supported: only functions are.", kind=tool.type
            )
        if tool.function is None:
            raise invalid(f"{path}.function", "it is missing.")
        _add(found, tool.function, f"{path}.function")
    return found


def _legacy_functions(body: ChatRequest) -> dict[str, Function]:
    found: dict[str, Function] = {}
    for number, function in enumerate(body.functions or ()):
        _add(found, function, f"functions[{number}]")
    return found


def _add(found: dict[str, Function], given: FunctionDefinition, path: str) -> None:
    if not given.name.strip():
        raise invalid(f"{path}.name", "it is empty.")
    if given.name in found:
        raise invalid(f"{path}.name", "{name!r} is the name of two functions.", name=given.name)
    schema = dict(given.parameters or {})
    if not any(name in schema for name in _COMBINED):
        schema.setdefault("type", "object")
    if schema.get("type", "object") != "object":
        raise invalid(f"{path}.parameters.type", "it must be object.")
    if _says_nothing(schema):
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
    found[given.name] = Function(given.name, given.description or "", schema, f"{path}.parameters")


def _says_nothing(schema: Mapping[str, Any]) -> bool:
    """Whether a schema neither names an argument nor allows additional ones."""
    given = (schema.get(name) for name in ("properties", "required", "additionalProperties"))
    return schema.keys() <= _SILENT and not any(given)


def _names(choice: Any, path: str, functions: Mapping[str, Function]) -> tuple[list[str], bool]:
    """The functions of which one must be called, and whether the request named a single one."""
    match choice:
        case None | "auto" | "none":
            return [], False
        case "required" | "any":
            if not functions:
                raise invalid(path, "{choice!r} needs tools.", choice=choice)
            return list(functions), False
        case {"type": "allowed_tools"}:
            return _allowed(choice, path, functions), False
        case {"type": "function", "function": {"name": name}}:
            return [_known(name, f"{path}.function.name", functions)], True
        case {"name": name} if choice.get("type", "function") == "function":
            return [_known(name, f"{path}.name", functions)], True
    raise invalid(
        path,
        "it must be none, auto, required, or an object of type function that has a name, or of "
        "type allowed_tools.",
    )


def _allowed(choice: Mapping[str, Any], path: str, functions: Mapping[str, Function]) -> list[str]:
    """`allowed_tools`, whose contents some clients put next to its type."""
    inside = choice.get("allowed_tools")
    if inside is not None:
        path += ".allowed_tools"
    given = choice if inside is None else inside
    match given:
        case {"mode": "auto" | "required" as mode, "tools": [_, *_] as tools}:
            names = _each_name(tools, f"{path}.tools", functions)
            return names if mode == "required" else []
    raise invalid(path, "it needs mode, auto or required, and tools, one or more.")


def _each_name(tools: Sequence[Any], path: str, functions: Mapping[str, Function]) -> list[str]:
    names = []
    for number, tool in enumerate(tools):
        match tool:
            case {"type": "function", "function": {"name": name}}:
                names.append(_known(name, f"{path}[{number}].function.name", functions))
            case {"type": "function", "name": name}:
                names.append(_known(name, f"{path}[{number}].name", functions))
            case _:
                raise invalid(f"{path}[{number}]", "it must be a function that has a name.")
    return list(dict.fromkeys(names))


def _known(name: Any, path: str, functions: Mapping[str, Function]) -> str:
    if isinstance(name, str) and name in functions:
        return name
    raise invalid(
        path,
        "{name!r} is not one of the functions of this request: {known}.",
        name=str(name)[:100],
        known=", ".join(functions)[:200] or "it has none",
    )
