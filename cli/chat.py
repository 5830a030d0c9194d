"""`issun chat`: a conversation in a terminal, or through a pipe with one message per line."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from issun.cli import options as opt
from issun.cli.commands import Commands
from issun.cli.language import note, printable, tr
from issun.cli.reporting import describe, message_of
from issun.cli.stats import print_stats
from issun.runtime import Conversation, Model, ParameterError, Stream
from issun.runtime.defaults import make_params
from issun.runtime.files import decode_utf8, read_text

# Questions to the demonstration model, which understands only Japanese.
_EXAMPLES = ("日本で一番高い山は?", "フランスの首都は?", "今何問目?")
_SLASHES = ("/", "／")  # the second is typed with an IME


@opt.with_sampling
def run(
    *,
    bundle: opt.Bundle = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help=tr("The role that the model plays, in your own words.")),
    ] = None,
    role_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr(
                "File with the role: lines (User:..., Assistant:...), or the system message of a "
                "chat template."
            ),
        ),
    ] = None,
    history: Annotated[
        bool,
        typer.Option(help=tr("Save the messages you type, to recall them with the arrow keys.")),
    ] = True,
    stats: opt.Stats = False,
    threads: opt.Threads = None,
    kv_cache: opt.KVCache = None,
    trust: opt.Trust = False,
    adapter: opt.Adapter = None,
    sampling: dict[str, Any],
) -> None:
    """Read messages and stream the answers to stdout until the end of input.

    Errors are reported and the chat continues; from a pipe it then ends with exit code 2.
    """
    text = _role(role, role_file)
    kind, chosen = cast(Any, kv_cache), opt.one_adapter(adapter)
    adapters = [chosen] if chosen else []
    with Model.load(
        bundle, threads=threads, kv_cache=kind, trust=trust, adapters=adapters, notify=note
    ) as model:
        spoken = text if role_file is None else model.prompts.file_lines(text)
        conversation = Conversation(
            model,
            spoken,
            params=make_params(model.manifest, **sampling),
            adapter=next(iter(model.adapters), None),
        )
        chat = Chat(conversation, stats=stats)
        if not sys.stdin.isatty():
            failed = 0
            with suppress(EOFError):
                for line in _lines_of_stdin():
                    failed += not _handle_safely(chat, line)
            if failed:
                raise typer.Exit(2)
        else:
            if bundle is None:
                note(
                    "This small demonstration model knows some geography, simple arithmetic and\n"
                    "short texts. Try: {questions}\n"
                    "`issun export` makes a bundle of a larger model.",
                    questions=" ".join(_EXAMPLES),
                )
            _run_interactively(chat, model, keep_history=history)


class Chat:
    """Answers messages and runs commands, and prints the results."""

    def __init__(self, conversation: Conversation, *, stats: bool) -> None:
        self.conversation, self.stats = conversation, stats
        self.commands = Commands(conversation)
        self._stream: Stream | None = None  # of the latest answer
        self._stopped = False

    def handle(self, line: str) -> None:
        """Run a command or answer a message; an empty line is ignored.

        A message that begins with a slash is written with two. Raises EOFError for /quit, as
        reading does at the end of input.
        """
        self._stopped = False
        if not line.strip():
            return
        if line.startswith(_SLASHES) and not line[1:].startswith(_SLASHES):
            stream = self.commands.run(line)
        else:
            text = line[1:] if line.startswith(_SLASHES) else line
            stream = self.conversation.stream(text)
        if stream is not None:
            with closing(stream):  # frees the model for the next message, whatever fails
                self._print_answer(stream)

    def stop(self) -> None:
        """Stop the running or starting answer; may be called from a signal handler."""
        self._stopped = True
        if self._stream:
            with suppress(ParameterError):  # it has failed or is already ending
                self._stream.cancel()

    def _print_answer(self, stream: Stream) -> None:
        self._stream = stream
        if self._stopped:  # stopped while the prompt was prepared
            stream.cancel()
        if stream.dropped_turns:
            note("[old turns dropped to fit the context: {count}]", count=stream.dropped_turns)
        try:
            for segment in stream:
                print(printable(segment.text), end="", flush=True)
        finally:
            print(flush=True)
        completion = stream.finish()
        if completion.finish_reason == "length":
            note(
                "[stopped at {count} tokens; /continue continues]",
                count=completion.timings.new_tokens,
            )
        elif completion.finish_reason == "cancelled" and not completion.ids:
            note("[stopped before the answer began]")
        elif completion.finish_reason == "cancelled":
            note("[stopped; /continue continues, /undo removes it]")
        if self.stats:
            print_stats(completion)


def _run_interactively(chat: Chat, model: Model, *, keep_history: bool) -> None:
    from issun.cli.terminal import Terminal  # noqa: PLC0415

    terminal = Terminal(keep_history=keep_history, commands=chat.commands.described())
    note(
        "{name} ({precision}). /help lists the commands, Ctrl-C stops an answer, Ctrl-D exits.",
        name=model.manifest.source.name,
        precision=model.manifest.precision.name,
    )
    with _on_interrupt(chat.stop), suppress(EOFError):
        while True:
            try:
                with _prefilling_ahead(chat.conversation):
                    line = terminal.read()
            except KeyboardInterrupt:  # the prompt reads Ctrl-C as a key, not as a signal
                note("(Ctrl-D exits)")
            except ParameterError as error:
                note("error: {message}", message=describe(error))
            else:
                _handle_safely(chat, line)


def _handle_safely(chat: Chat, line: str) -> bool:
    """Handle a line and report any error, so that the chat continues; False for an error."""
    try:
        chat.handle(line)
    except (EOFError, BrokenPipeError):  # nobody reads the answers any more
        raise
    except Exception as error:
        message = message_of(error) or f"{type(error).__name__}: {error}"
        note("error: {message}", message=" ".join(message.split()))
        return False
    return True


@contextmanager
def _on_interrupt(act: Callable[[], object]) -> Iterator[None]:
    """Let Ctrl-C call `act` instead of raising KeyboardInterrupt in the middle of work."""
    before = signal.signal(signal.SIGINT, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _prefilling_ahead(conversation: Conversation) -> Iterator[None]:
    """Prefill the start of the next prompt in a thread while the user types."""
    stop = threading.Event()

    def read() -> None:
        with suppress(Exception):  # an error is reported when the message is answered
            conversation.read_ahead(stop.is_set)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _lines_of_stdin() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield decode_utf8(raw).rstrip("\r\n")
        except UnicodeDecodeError as error:
            damaged = ParameterError("Line {number} on stdin is not UTF-8.", number=number)
            raise opt.stdin_error(raw, damaged) from error


def _role(text: str | None, path: Path | None) -> str:
    if text is not None and path is not None:
        raise ParameterError("Give --role or --role-file, not both.")
    return opt.utf8(text or "") if path is None else read_text(path)
