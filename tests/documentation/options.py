"""Checks commands that are not run: options against `--help`, and names of modules and targets."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from issun.cli.main import make_app
from tests.documentation.pages import ROOT

_INLINE = re.compile(r"(?<!`)`((?:issun|make|python -m issun)[^`\n]*)`(?!`)")
_UsageError = typer.BadParameter.__base__  # typer does not export it
_PASSES_ON = {"issun.benchmarks.start": "generate"}  # gives options that it does not know to issun
_TARGET = re.compile(r"^([a-z][\w-]*):", re.M)


def inline_commands(text: str) -> list[str]:
    """What stands between backticks and begins with `issun`, `make` or `python -m issun`."""
    return _INLINE.findall(text)


def commands(code: str) -> Iterator[list[str]]:
    """The simple commands of a shell's code as words: pipes, lists and redirections apart."""
    joined = re.sub(r"[\\^`]\n\s*", " ", code)  # continued as in sh, cmd and PowerShell
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("();<>|&"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def errors_in_code(code: str) -> Iterator[str]:
    """What is wrong with the `issun`, `make` and `python -m issun` commands of a block."""
    for words in commands(code):
        while words and (re.match(r"\w+=", words[0]) or words[0] in ("time", "nice")):
            words = words[1:]  # noqa: PLW2901
        yield from _errors(words, whole=True)


def errors_in_line(line: str) -> Iterator[str]:
    """What is wrong with a command within a sentence, where arguments may be left out."""
    yield from _errors(line.replace("'", " ").replace('"', " ").split(), whole=False)


def _errors(words: list[str], *, whole: bool) -> Iterator[str]:
    match words:
        case ["issun", *arguments]:
            yield from _issun_errors(arguments, whole=whole)
        case ["make", target, *_] if re.fullmatch(r"[a-z][\w-]*", target):
            if target not in _TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")):
                yield f"make has no target {target}"
        case ["python" | "python3" | "py", "-m", module, *arguments] if (
            module.split(".")[0] == "issun"
        ):
            if module == "issun":
                yield from _issun_errors(arguments, whole=whole)
            elif importlib.util.find_spec(module) is None:
                yield f"there is no module {module}"
            elif asked := _options(arguments):
                known = _module_options(module)
                yield from (f"{module} has no {name}" for name in asked if name not in known)


def _issun_errors(arguments: list[str], *, whole: bool) -> Iterator[str]:
    name, command, rest = _subcommand(arguments)
    if command is None:
        yield f"issun has no command {name}"
        return
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}
    unknown = [o for o in _options(rest) if o not in known]
    yield from (f"issun {name} has no option {option}" for option in unknown)
    if whole and not unknown and not {"-h", "--help", "--version"} & {*rest}:
        try:
            command.make_context(name, rest)
        except _UsageError as error:  # type: ignore[misc]
            yield f"issun {name}: {error.format_message()}"


def _subcommand(arguments: list[str]) -> tuple[str, TyperCommand | TyperGroup | None, list[str]]:
    """The command that words name, and the words left for it."""
    command: TyperCommand | TyperGroup | None = typer.main.get_command(make_app())
    names = []
    rest = arguments
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        if names == ["bench"] and rest[0] not in command.commands:
            command = command.commands["run"]  # `issun bench BUNDLE` means `issun bench run BUNDLE`
            break
        names.append(rest[0])
        command, rest = command.commands.get(rest[0]), rest[1:]
    if isinstance(command, TyperGroup) and names == ["bench"]:
        command = command.commands["run"]
    return " ".join(names), command, rest


def _options(words: list[str]) -> list[str]:
    found = (re.match(r"(--[a-z][\w-]*|-[a-zA-Z](?![\w.]))", word) for word in words)
    return [match[1] for match in found if match]


@functools.cache
def _module_options(module: str, *arguments: str) -> set[str]:
    command = [sys.executable, "-m", module, *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    more = _module_options("issun", _PASSES_ON[module]) if module in _PASSES_ON else set()
    return {*re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout)} | more
