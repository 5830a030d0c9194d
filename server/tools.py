"""`tools` and `tool_choice` -> the functions of which an answer calls one.

Only a call that the request demands is made: with `auto` the answer is text. No schema stands in
the prompt, it constrains the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from issun.server.body import invalid, refused
from issun.server.types import ChatRequest, FunctionDefinition, Message

_COMBINED = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")
_SILENT = {
    *("type", "properties", "required", "additionalProperties", "title", "description", "$schema"),
}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called; `place` is the path of its schema in the body."""

    name: str
    description: str
    parameters: dict[str, Any]  # the JSON schema of an object
    place: str


@dataclass(frozen=True, slots=True)
class Calling:
    """The functions of which each answer calls one; `named` where the request says which."""

    functions: tuple[Function, ...]
    named: bool = False
    legacy: bool = False  # asked for by `function_call`, and answered there


def calling_of(asked: ChatRequest) -> Calling | None:
    """What a request demands to be called; None where the answer is text.

    Raises ApiError with the path of a tool that is no function, and of a choice that cannot be.
    """
    legacy = bool(asked.functions or asked.function_call)
    if legacy and (asked.tools or asked.tool_choice):
        raise invalid("functions", "give these or tools and tool_choice, not both.")
    functions = _legacy_functions(asked) if legacy else _functions(asked)
    if legacy:
        names, named = _names(asked.function_call, "function_call", functions)
    else:
        names, named = _names(asked.tool_choice, "tool_choice", functions)
    if not names:
        return None
    names = _without_called(names, asked.messages)
    return Calling(tuple(functions[name] for name in names), named, legacy)


def _without_called(names: list[str], messages: Sequence[Message]) -> list[str]:
    """`names` less those called since the user's last message, unless these are all.

    Else a small model calls one function again and again, and an agent that demands calls never
    gets to the one that ends it.
    """
    called: set[str] = set()
    for message in reversed(messages):
        if message.role == "user":
            break
        called |= {call.function.name for call in message.tool_calls or ()}
        called |= {message.function_call.name} if message.function_call else set()
    return [name for name in names if name not in called] or names


def _functions(asked: ChatRequest) -> dict[str, Function]:
    found: dict[str, Function] = {}
    for number, tool in enumerate(asked.tools or ()):
        place = f"tools[{number}]"
        if tool.type != "function":
            raise refused(
                f"{place}.type", "{kind!r} is not supported: only functions are.", kind=tool.type
            )
        if tool.function is None:
            raise invalid(f"{place}.function", "it is missing.")
        _add(found, tool.function, f"{place}.function")
    return found


def _legacy_functions(asked: ChatRequest) -> dict[str, Function]:
    found: dict[str, Function] = {}
    for number, function in enumerate(asked.functions or ()):
        _add(found, function, f"functions[{number}]")
    return found


def _add(found: dict[str, Function], given: FunctionDefinition, place: str) -> None:
    if not given.name.strip():
        raise invalid(f"{place}.name", "it is empty.")
    if given.name in found:
        raise invalid(f"{place}.name", "{name!r} is the name of two functions.", name=given.name)
    schema = dict(given.parameters or {})
    if not any(name in schema for name in _COMBINED):
        schema.setdefault("type", "object")
    if schema.get("type", "object") != "object":
        raise invalid(f"{place}.parameters.type", "it must be object.")
    if _says_nothing(schema):
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
    found[given.name] = Function(given.name, given.description or "", schema, f"{place}.parameters")


def _says_nothing(schema: Mapping[str, Any]) -> bool:
    """Whether a schema names no argument, and lets none have any name: then there are none."""
    given = (schema.get(name) for name in ("properties", "required", "additionalProperties"))
    return schema.keys() <= _SILENT and not any(given)


def _names(choice: Any, place: str, functions: Mapping[str, Function]) -> tuple[list[str], bool]:
    """Names of the functions of which one must be called, and whether it is the only one named."""
    match choice:
        case None | "auto" | "none":
            return [], False
        case "required" | "any":
            if not functions:
                raise invalid(place, "{choice!r} needs tools.", choice=choice)
            return list(functions), False
        case {"type": "allowed_tools"}:
            return _allowed(choice, place, functions), False
        case {"type": "function", "function": {"name": name}}:
            return [_known(name, f"{place}.function.name", functions)], True
        case {"name": name} if choice.get("type", "function") == "function":
            return [_known(name, f"{place}.name", functions)], True
    raise invalid(
        place,
        "it must be none, auto, required, or an object of type function that has a name, or of "
        "type allowed_tools.",
    )


def _allowed(choice: Mapping[str, Any], place: str, functions: Mapping[str, Function]) -> list[str]:
    """`allowed_tools`, whose contents some put beside its type."""
    inside = choice.get("allowed_tools")
    if inside is not None:
        place += ".allowed_tools"
    given = choice if inside is None else inside
    match given:
        case {"mode": "auto" | "required" as mode, "tools": [_, *_] as tools}:
            names = _each_name(tools, f"{place}.tools", functions)
            return names if mode == "required" else []
    raise invalid(place, "it needs mode, auto or required, and tools, one or more.")


def _each_name(tools: Sequence[Any], place: str, functions: Mapping[str, Function]) -> list[str]:
    names = []
    for number, tool in enumerate(tools):
        match tool:
            case {"type": "function", "function": {"name": name}}:
                names.append(_known(name, f"{place}[{number}].function.name", functions))
            case {"type": "function", "name": name}:
                names.append(_known(name, f"{place}[{number}].name", functions))
            case _:
                raise invalid(f"{place}[{number}]", "it must be a function that has a name.")
    return list(dict.fromkeys(names))


def _known(name: Any, place: str, functions: Mapping[str, Function]) -> str:
    if isinstance(name, str) and name in functions:
        return name
    raise invalid(
        place,
        "{name!r} is none of the functions of this request: {known}.",
        name=str(name)[:100],
        known=", ".join(functions)[:200] or "it has none",
    )
