"""The command `issun`: one thin file a subcommand, UTF-8 everywhere."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import issun
from issun.cli import bench, cache, chat, evaluate, export, finetune, generate, inspect, kit, serve
from issun.cli.interrupts import end_at_once, raise_interrupts
from issun.cli.language import tr
from issun.cli.reporting import exit_code_of

app = typer.Typer(
    name="issun",
    help=tr("Run a Japanese GPT-2 model on this computer's CPU, offline."),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("export", help=tr("Turn a checkpoint into a quantized bundle."))(export.run)
app.command("finetune", help=tr("Let a checkpoint learn from instructions and chats."))(
    finetune.run
)
app.command("chat", help=tr("Talk with a bundle."))(chat.run)
app.command("generate", help=tr("Answer one instruction."))(generate.run)
app.command("serve", help=tr("Answer the OpenAI dialect, and show a chat page."))(serve.run)
app.command("evaluate", help=tr("Ask many times, and count the right answers."))(evaluate.run)
app.add_typer(bench.app, name="bench")
app.command("cache", help=tr("List, check or clear the weights packed for this CPU."))(cache.run)
app.command("kit", help=tr("Write a folder that runs the chat on an offline computer."))(kit.run)
app.command("inspect", help=tr("Say what a bundle is."))(inspect.run)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"issun {version('issun')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help=tr("Print the version.")),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: 0 well, 2 for a user's mistake, 130 for Ctrl-C."""
    sys.excepthook = issun._report  # for an interrupt behind an interrupt
    end_at_once()
    _open_streams()
    try:
        raise_interrupts()
        app(prog_name="issun")
    except BaseException as error:
        if (code := exit_code_of(error)) is None:
            raise
        sys.exit(code)
    finally:
        end_at_once()  # the interpreter's own end would print a traceback


def _open_streams() -> None:
    """UTF-8 whatever the locale; a stream that the caller has closed reads and takes nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
