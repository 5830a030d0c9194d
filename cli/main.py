"""The command `issun`: one thin file a subcommand, errors as one line, UTF-8 everywhere."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from issun.cli import chat, export, generate, inspect
from issun.cli.language import describe, note, tr
from issun.runtime.errors import IssunError

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
app.command("chat", help=tr("Talk with a bundle."))(chat.run)
app.command("generate", help=tr("Answer one instruction."))(generate.run)
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        app(prog_name="issun")
    except IssunError as error:
        note("error: {message}", message=describe(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not try to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
