"""Reports errors as one line and an exit code."""

from __future__ import annotations

import os
import sys

from issun.cli.extras import missing_extra
from issun.cli.interrupts import is_interrupt
from issun.cli.language import mark, note, recognize, tr
from issun.runtime.errors import IssunError
from issun.runtime.files import reason_of

# Reasons for failures, as the system, a library or the runtime puts them into other messages.
_REASONS = (
    mark("{message} - at `{place}`"),
    mark("regex: {message}"),
    mark("JSON is malformed: {message} (byte {position})"),
    mark("No such file or directory"),
    mark("Permission denied"),
    mark("Operation not permitted"),
    mark("Is a directory"),
    mark("Not a directory"),
    mark("File exists"),
    mark("File name too long"),
    mark("No space left on device"),
    mark("Read-only file system"),
    mark("Input/output error"),
    mark("Too many open files"),
    mark("Too many levels of symbolic links"),
    mark("Address already in use"),
    mark("Cannot assign requested address"),
    mark("Connection refused"),
    mark("Name or service not known"),
    mark("Temporary failure in name resolution"),
    mark("nodename nor servname provided, or not known"),
    mark("getaddrinfo failed"),
    mark("Network is unreachable"),
    mark("invalid character"),
    mark("trailing comma in object"),
    mark("Input data was truncated"),
    mark("Object missing required field `{field}`"),
    mark("Expected `{expected}`, got `{found}`"),
    mark("Expected `{expected}` {limit}"),
    mark("a chunk has another form than the OpenAI API's"),
    mark("the answer is no stream: {text}"),
    mark("the answer is compressed ({coding}), which it was not asked to be"),
    mark("the server gave up: its finish reason is {finish}"),
    mark("not finished after {seconds} s"),
    mark("unclosed group"),
    mark("unopened group"),
    mark("unclosed character class"),
    mark("repetition operator missing expression"),
    mark("look-around, including look-ahead and look-behind, is not supported"),
    mark("it is a pipe or a device, not a file"),
    mark("it is {encoding}, and damaged (byte {position})"),
    mark("it is {encoding}, not UTF-8: `{fix}` converts it"),
    mark("it is not UTF-8 (byte {position})"),
    mark("Expecting value: line {line} column {column} (char {position})"),
    mark("from {low} to {high}"),
    mark("above {low} and at most {high}"),
    mark("above {low}"),
    mark("of at least {low}"),
    mark("of at most {high}"),
    mark("`{name}` is missing or empty"),
    mark("`label` is not the number of a choice"),
    mark("there are fewer than two choices"),
    mark("it is not an object"),
    mark("it has more cells than the header"),
    mark("Give either a prompt or an instruction."),
    mark("An input needs an instruction."),
    mark("There are no continuations to rank."),
    mark("{name} is missing"),
    mark("{name} is unknown"),
    mark("{name} is empty"),
    mark("{name} has shape {found}, not {expected}"),
    mark("{name} has type {found}, not float32, float16 or bfloat16"),
)
# What the answers of a batch depend on, as `issun.cluster` names it.
_PARTS = (
    mark("format"),
    mark("input"),
    mark("bundle"),
    mark("seed"),
    mark("KV cache"),
    mark("template"),
    mark("sampling"),
    mark("version of ONNX Runtime"),
    mark("kind of CPU"),
)
# Values that are English texts themselves.
_TEXTS = {"reason": _REASONS, "faults": _REASONS, "bounds": _REASONS, "part": _PARTS}


def exit_code_of(error: BaseException) -> int | None:
    """The exit code: 2 for a user's mistake, after reporting it, 130 for Ctrl-C, None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if (message := message_of(error)) is None:
        return 130 if isinstance(error, Exception) and is_interrupt(error) else None
    note("error: {message}", message=message)
    if isinstance(error, OSError):
        _discard_output()
    return 2


def message_of(error: BaseException) -> str | None:
    """A one-line message for an error that a user can fix; None for a bug or an interrupt."""
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return named + recognize(reason_of(error), _REASONS)
    if isinstance(error, ModuleNotFoundError) and not is_interrupt(error):
        error = missing_extra(error) or error
    return describe(error) if isinstance(error, IssunError) else None


def describe(error: IssunError) -> str:
    """The error's message in the reader's language, as one line."""
    values = {
        name: "; ".join(recognize(text, _TEXTS[name]) for text in str(value).split("; "))
        if name in _TEXTS
        else value
        for name, value in error.values.items()
    }
    return " ".join(tr(error.template).format(**values).split())


def _discard_output() -> None:
    """Drop buffered output that cannot be written, so that the interpreter can exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
