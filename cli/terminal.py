"""The input line in a terminal: wide characters, IME, history, multiple lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from issun.cli.language import note
from issun.runtime import ParameterError


class Terminal:
    """Reads messages from the terminal; the prompt is never written to a redirected stdout."""

    def __init__(self, *, keep_history: bool, commands: Mapping[str, str]) -> None:
        """Tab completes the names of `commands` and shows their descriptions."""
        history = _open_history() if keep_history else InMemoryHistory()
        self._session: PromptSession[str] = PromptSession(
            history=history,
            key_bindings=_keys(),
            completer=_CommandCompleter(commands),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation="  ",
            output=create_output(always_prefer_tty=True),
        )

    def read(self) -> str:
        """The next message; raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C."""
        # prompt_toolkit's signal handler would briefly restore Python's default one.
        text = self._session.prompt("> ", handle_sigint=False)
        if any("\udc80" <= character <= "\udcff" for character in text):
            raise ParameterError("The input is not UTF-8; nothing was sent.")
        return text


class _History(FileHistory):
    """A history file whose read and write errors are ignored."""

    def load_history_strings(self) -> Iterator[str]:
        with suppress(OSError):
            yield from super().load_history_strings()

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


class _CommandCompleter(Completer):
    """Completes the names of commands."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        self._commands = commands

    def get_completions(self, document: Document, _: CompleteEvent) -> Iterator[Completion]:
        typed = document.text_before_cursor
        begun = unicodedata.normalize("NFKC", typed).lower()
        for name, text in self._commands.items() if begun.startswith("/") else ():
            if name.startswith(begun):
                yield Completion(name, start_position=-len(typed), display_meta=text)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _open_history() -> History:
    """The history file, readable only by its owner; in memory if it cannot be written."""
    from platformdirs import user_state_path  # noqa: PLC0415

    path = user_state_path("issun", appauthor=False) / "history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        return _History(str(path))
    except OSError as error:
        note("The history cannot be saved: {reason}", reason=error)
        return InMemoryHistory()
