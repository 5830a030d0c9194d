"""Parses JSON bodies into request types; unknown fields that would have an effect are rejected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect as kinds

from issun.runtime.files import as_utf8
from issun.server.errors import ApiError, UnsupportedError
from issun.server.ignored import ACTIVE_WHEN_EMPTY, ALTERNATIVES
from issun.server.types import Body

_T = TypeVar("_T", bound=Body)
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_KINDS: dict[type, tuple[type[kinds.Type], ...]] = {
    bool: (kinds.BoolType,),
    float: (kinds.FloatType,),
    str: (kinds.StrType,),
    list: (kinds.ListType,),
    dict: (kinds.DictType, kinds.StructType),
}
_SHOWN = 100  # maximum length of a value or a path in an error


def parse(raw: bytes, kind: type[_T]) -> _T:
    """Parse a body; raises ApiError with the path of what is wrong."""
    try:
        value = msgspec.json.decode(as_utf8(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise ApiError("The body is not JSON: {reason}", reason=reason) from error
    return convert(value, kind)


def convert(value: Any, kind: type[_T], path: str = "") -> _T:
    """Convert the decoded value at path `path` of a body; raises ApiError as `parse` does."""
    try:
        return msgspec.convert(_tidy(value, _described(kind), path), kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, value, path) from error


def unsupported(path: str, template: str, /, **values: object) -> ApiError:
    """The error for a value, given by its path in the body, that this server does not support."""
    return _about(UnsupportedError, path, template, values)


def invalid(path: str, template: str, /, **values: object) -> ApiError:
    """The error for an invalid value, given by its path in the body."""
    return _about(ApiError, path, template, values)


def _about(kind: type[ApiError], path: str, template: str, values: dict[str, object]) -> ApiError:
    error = kind(f"{{path}}: {template}", path=path[:_SHOWN], **values)
    error.param = path[:_SHOWN]
    return error


@lru_cache
def _described(kind: type[Body]) -> kinds.Type:
    return kinds.type_info(kind)


def _tidy(value: Any, kind: kinds.Type, path: str) -> Any:
    """`value` without ignored fields; raises UnsupportedError for other unknown fields.

    Null values, and empty values of another type than their field's, are left out as well.
    """
    if isinstance(value, float) and value.is_integer() and not _takes(kind, value):
        return int(value)  # JavaScript, for one, has only one number type
    for option in _options(kind):
        if isinstance(value, dict) and isinstance(option, kinds.StructType):
            return _tidy_object(value, option, path)
        if isinstance(value, list) and isinstance(option, kinds.ListType):
            if not any(isinstance(x, kinds.StructType) for x in _options(option.item_type)):
                return value
            return [_tidy(x, option.item_type, f"{path}[{i}]") for i, x in enumerate(value)]
    return value


def _tidy_object(value: dict[str, Any], kind: kinds.StructType, parent: str) -> dict[str, Any]:
    fields = {field.encode_name: field for field in kind.fields}
    kept = {}
    for name, item in value.items():
        path = f"{parent}.{name}" if parent else name
        field = fields.get(name)
        if field is None:
            _check_ignored(kind, name, item, path)
        elif field.required or not (_is_empty(item) and not _takes(field.type, item)):
            kept[name] = _tidy(item, field.type, path)
    return kept


def _check_ignored(kind: kinds.StructType, name: str, value: Any, path: str) -> None:
    check = cast(type[Body], kind.cls).ignored.get(name)
    empty = _is_empty(value) and (value is None or name not in ACTIVE_WHEN_EMPTY)
    switched_off = value is False and check is not None and check(True)  # its default is on
    if (check is not None and check(value)) or (empty and not switched_off):
        return
    known = [field.encode_name for field in kind.fields]
    if name in ALTERNATIVES:
        hint = f" Use {ALTERNATIVES[name]}."
    elif close := get_close_matches(name[:_SHOWN], known, n=1, cutoff=0.8):
        hint = f" Did you mean {close[0]}?"
    else:
        hint = " Leave it out."
    raise unsupported(path, "{value} is not supported.{hint}", value=_shown(value), hint=hint)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _takes(kind: kinds.Type, value: Any) -> bool:
    """Whether a field of this type accepts values of this type."""
    wanted = _KINDS.get(type(value), ())
    return any(isinstance(option, (kinds.AnyType, *wanted)) for option in _options(kind))


def _options(kind: kinds.Type) -> Iterator[kinds.Type]:
    """The members of a union, or the type itself."""
    if isinstance(kind, kinds.UnionType):
        yield from kind.types
    else:
        yield kind


def _invalid(error: msgspec.ValidationError, value: Any, within: str) -> ApiError:
    """The error for a value of the wrong type or size, with its path and the value itself."""
    text = str(error)
    path = found[1] if (found := _AT.search(text)) else ""
    reason = _AT.sub("", text)
    full_path = f"{within}.{path}" if within and path else within or path
    if not full_path:
        return ApiError("{reason}", reason=reason)
    return invalid(full_path, "{value}: {reason}", value=_shown(_at(value, path)), reason=reason)


def _at(value: Any, path: str) -> Any:
    """The value at a path of a body, or the deepest one that exists on that path."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if index and isinstance(value, list):
            value = value[int(index)]
        elif name and isinstance(value, dict) and name in value:
            value = value[name]
    return value


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
