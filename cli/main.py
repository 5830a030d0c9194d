"""The command `issun`; each subcommand has its own module."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import issun
from issun.cli.help import Command, Group
from issun.cli.interrupts import exit_on_interrupt, raise_on_interrupt
from issun.cli.language import tr
from issun.cli.reporting import exit_code_of
from issun.cli.usage import is_usage_error, report_usage_error

# Each has its module in `issun.cli`, with a function `run`; `bench` has subcommands.
_COMMANDS = {
    "export": tr("Export a checkpoint to a quantized bundle."),
    "adapter": tr("Make a LoRA adapter that a bundle can be loaded with."),
    "finetune": tr("Fine-tune a checkpoint on instructions and chats."),
    "chat": tr("Chat with a model."),
    "generate": tr("Answer one instruction."),
    "batch": tr("Answer every row of a file."),
    "serve": tr("Serve an OpenAI-compatible API and a chat page."),
    "evaluate": tr("Ask questions many times and count the correct answers."),
    "score": tr("Score a text, or rank continuations of a prompt."),
    "cache": tr("List, check or clear the weights packed for this CPU."),
    "kit": tr("Write a folder that runs the chat on an offline computer."),
    "web": tr("Write a static web site that runs the chat in the browser."),
    "inspect": tr("Show what a bundle contains."),
    "bench": "",
}


def make_app(names: Iterable[str] = _COMMANDS) -> typer.Typer:
    """Return the command line with the subcommands `names`, whose modules are imported."""
    app = typer.Typer(
        name="issun",
        cls=Group,
        help=tr("Run a Japanese chat model on this computer's CPU, offline."),
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_options)
    for name in names:
        module = import_module(f"issun.cli.{name}")
        if name == "bench":
            app.add_typer(module.app, name=name)
        else:
            app.command(name, cls=Command, help=_COMMANDS[name])(module.run)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"issun {version('issun')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help=tr("Print the version.")),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; exits with 0, with 2 for a user's mistake, or with 130 for Ctrl-C."""
    sys.excepthook = issun._report  # for an interrupt during the handling of another
    exit_on_interrupt()
    _open_streams()
    try:
        raise_on_interrupt()
        # The modules of other commands would take as long as the command itself.
        named = [name for name in sys.argv[1:2] if name in _COMMANDS]
        sys.exit(make_app(named or _COMMANDS)(prog_name="issun", standalone_mode=False))
    except BaseException as error:
        if is_usage_error(error):
            report_usage_error(error)
            sys.exit(2)
        if (code := exit_code_of(error)) is None:
            raise
        sys.exit(code)
    finally:
        exit_on_interrupt()  # Ctrl-C during the interpreter's shutdown would print a traceback


def _open_streams() -> None:
    """Use UTF-8 in every locale, and the null device for streams that the caller has closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
