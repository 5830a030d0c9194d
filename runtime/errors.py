"""The errors of the runtime: each is one line that a person can act on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import PurePath

_LONGEST = 1000  # characters of a value in a message

Notify = Callable[..., None]  # gets a template and its values, as an error has them


class IssunError(Exception):
    """Base of every error that issun raises on purpose.

    The message is kept as a template with its values, so that the command line can say it in
    another language.
    """

    def __init__(self, template: str, **values: object) -> None:
        """Take an English sentence with `{name}` fields and the values of these."""
        values = {name: _shortened(value) for name, value in values.items()}
        super().__init__(template.format(**values))
        self.template = template
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by template and values, since the message alone may hold braces."""
        return partial(type(self), self.template, **self.values), ()


class BundleError(IssunError):
    """The bundle is missing, damaged, too new, or no bundle at all."""


class ParameterError(IssunError):
    """A value is outside the range that it may have."""


class ContextError(IssunError):
    """A prompt, a role or a message does not fit into the model's context."""


class OutOfMemoryError(IssunError):
    """The system gives no more memory; what the model had read before is kept."""


class SamplingError(IssunError):
    """No token can be drawn: the logits are not numbers, or every token is banned."""


class BusyError(IssunError):
    """The model is already answering; one model serves one caller at a time."""


class CompilerBusyError(BusyError):
    """Too many schemas and patterns wait to be compiled."""


class ConversationError(IssunError):
    """The conversation cannot do this now, or a saved one cannot be read or written."""


def _shortened(value: object) -> object:
    """A text without its middle where it is too long for a line: names in files may be huge."""
    if not isinstance(value, str | PurePath) or len(text := str(value)) <= _LONGEST:
        return value
    return f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise ParameterError unless `value` is one of `known`."""
    if value not in known:
        raise ParameterError(
            "{name} is {value!r}, it must be one of {known}.",
            name=name,
            value=value,
            known=", ".join(known),
        )
