"""The argument parser's own texts in the reader's language: headings of help, errors of usage."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import typer

from issun.cli.language import mark, note, recognize, show

# The parser prints English whatever the language, so its texts are recognized by these.
_TEMPLATES = (
    mark("Usage:"),
    mark("[OPTIONS]"),
    mark("COMMAND [ARGS]..."),
    mark("Arguments"),
    mark("Options"),
    mark("Commands"),
    mark("Show this message and exit."),
    mark("required"),
    mark("default: {value}"),
    mark("env var: {name}"),
    mark("Missing command."),
    mark("Missing argument '{name}'."),
    mark("Missing option '{short}' / '{name}'."),
    mark("Missing option '{name}'."),
    mark("No such command '{name}'. Did you mean '{known}', '{other}'?"),
    mark("No such command '{name}'. Did you mean '{known}'?"),
    mark("No such command '{name}'."),
    mark("No such option: {name} (Possible options: {known})"),
    mark("No such option: {name}"),
    mark("Option '{name}' requires an argument."),
    mark("Option '{name}' does not take a value."),
    mark("Got unexpected extra argument(s) ({values})"),
    mark("Got unexpected extra argument ({values})"),
    mark("Got unexpected extra arguments ({values})"),
    mark("Invalid value for '{short}' / '{name}': {message}"),
    mark("Invalid value for '{name}': {message}"),
    mark("{value} is not a valid int."),
    mark("{value} is not a valid float."),
)


def translate(text: str) -> str:
    """Translate a text of the parser; return other texts unchanged."""
    return recognize(text, _TEMPLATES)


def is_usage_error(error: BaseException) -> bool:
    """Whether the command line itself is wrong; typer has no public name for these errors."""
    return isinstance(error, typer.BadParameter.__bases__)


def report_usage_error(error: Any) -> None:
    """Print on stderr how the command is used and what is wrong; help alone for no arguments."""
    if possible := getattr(error, "possibilities", None):
        error.possibilities = _similar(error.option_name, possible)
    message, context = error.format_message(), error.ctx
    if context is None:
        note("error: {message}", message=translate(message))
    elif message == context.get_help():
        show(message)
    else:
        show(context.get_usage())
        note("Try '{command} --help' for help.", command=context.command_path)
        show("")
        note("error: {message}", message=translate(message))


def _similar(name: str, options: Iterable[str]) -> list[str]:
    """Those of `options` that `name` may mean; the parser's choice counts the dashes too."""
    words = {option.lstrip("-"): option for option in options}
    return [words[word] for word in get_close_matches(name.lstrip("-"), words)]
