"""The errors of the runtime; each is one line that tells the user what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

_MAX_LENGTH = 1000  # characters of a value in a message

Notify = Callable[..., None]  # called with a template and its values, as an error's


class IssunError(Exception):
    """Base of every error that issun raises on purpose.

    The message is kept as a template and its values, so that the command line can translate it.
    """

    def __init__(self, template: str, **values: object) -> None:
        """Take an English sentence with `{name}` fields, and their values."""
        values = {name: _shortened(value) for name, value in values.items()}
        super().__init__(template.format(**values))
        self.template = template
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the template and values, since the formatted message may contain braces."""
        return partial(type(self), self.template, **self.values), ()


class BundleError(IssunError):
    """The bundle is missing, damaged, too new, or not a bundle."""


class AdapterError(IssunError):
    """An adapter is missing or damaged, or does not fit the bundle."""


class ParameterError(IssunError):
    """A value is outside its range."""


class TemplateError(ParameterError):
    """A chat template failed, or refused the messages."""


class ContextError(IssunError):
    """A prompt, role or message does not fit into the model's context."""


class OutOfMemoryError(IssunError):
    """There is not enough memory; the model keeps what it had computed before."""


class SamplingError(IssunError):
    """No token can be sampled: the logits are NaN, or every token is banned."""


class BusyError(IssunError):
    """The model is in use; it serves one caller at a time."""


class CompilerBusyError(BusyError):
    """Too many schemas and patterns are waiting to be compiled."""


class ConversationError(IssunError):
    """The conversation cannot do this now, or a saved one cannot be read or written."""


def _shortened(value: object) -> object:
    """Cut the middle out of a text that is too long for a message, such as a name in a file."""
    if isinstance(value, list | dict) and len(text := repr(value)) > _MAX_LENGTH:
        value = text
    if not isinstance(value, str | PurePath) or len(text := str(value)) <= _MAX_LENGTH:
        return value
    return f"{text[: _MAX_LENGTH // 2]} … {text[-_MAX_LENGTH // 4 :]}"


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise ParameterError unless `value` is one of `known`."""
    if value not in known:
        raise ParameterError(
            "{name} is {value!r}, it must be one of {known}.",
            name=name,
            value=value,
            known=", ".join(known),
        )


def _bounds(low: float, high: float, *, exclusive: bool) -> str:
    """A range in words, which the command line translates."""
    if math.isinf(low):
        return f"of at most {high:g}"
    if math.isinf(high):
        return f"above {low:g}" if exclusive else f"of at least {low:g}"
    most = f"{high:g}" if isinstance(high, float) else str(high)
    return f"above {low:g} and at most {most}" if exclusive else f"from {low:g} to {most}"


def check_range(
    name: str, value: Any, kind: Any, low: float, high: float, *, exclusive: bool = False
) -> None:
    """Raise ParameterError unless `value` is of `kind`, Integral or Real, and in the range.

    With `exclusive`, `low` itself is outside.
    """
    good = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and (low < value if exclusive else low <= value)  # false for NaN
        and value <= high
    )
    if not good:
        bounds = _bounds(low, high, exclusive=exclusive)
        if kind is Integral:
            raise ParameterError(
                "{name} is {value!r}, it must be a whole number {bounds}.",
                name=name,
                value=value,
                bounds=bounds,
            )
        raise ParameterError(
            "{name} is {value!r}, it must be a number {bounds}.",
            name=name,
            value=value,
            bounds=bounds,
        )


def check_seed(value: Any) -> None:
    """Raise ParameterError unless `value` is a seed, a whole number of 64 bits."""
    check_range("seed", value, Integral, 0, 2**64 - 1)


def is_finite(value: object) -> bool:
    """Whether `value` is a number, and neither infinite nor NaN."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def check_switch(name: str, value: object) -> None:
    """Raise ParameterError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ParameterError(
            "{name} is {value!r}, it must be True or False.", name=name, value=value
        )


def check_texts(name: str, texts: object) -> None:
    """Raise ParameterError unless `texts` are several strings, none of them empty."""
    if not isinstance(texts, tuple | list) or not all(isinstance(s, str) and s for s in texts):
        raise ParameterError(
            "{name} is {value!r}, it must be a list of texts, none of them empty.",
            name=name,
            value=texts,
        )
