"""The slash commands of `issun chat`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import get_type_hints

from issun.cli.language import mark, note, show, tr
from issun.runtime import Conversation, ParameterError, SamplingParams, Stream
from issun.runtime.files import user_path
from issun.runtime.saved import kv_path

_SETTABLE = {
    name: kind
    for name, kind in get_type_hints(SamplingParams).items()
    if kind in (int, float) and name != "logprobs"
} | {"seed": int}

_ALIASES = ("/exit", "/bye")  # of /quit, as other programs call it


class Commands:
    """Carries out commands on a conversation; some of them answer."""

    def __init__(self, conversation: Conversation) -> None:
        self._chat = conversation
        self._table: dict[str, tuple[str, Callable[[str], Stream | None]]] = {
            "/reset": (mark("forget all turns"), self._reset),
            "/role": (mark("show the role, or take on another: /role TEXT"), self._role),
            "/undo": (mark("take the last turn back"), self._undo),
            "/retry": (mark("answer the last message anew"), lambda _: self._chat.retry()),
            "/continue": (mark("go on with an answer that was cut"), lambda _: self._chat.resume()),
            "/save": (mark("write the conversation to a new file: /save FILE"), self._save),
            "/load": (mark("read a conversation: /load FILE"), self._load),
            "/set": (mark("show or change the sampling: /set temperature 0.5"), self._set),
            "/quit": (mark("leave, as /exit and /bye do"), self._quit),
            "/help": (mark("this list"), self._help),
        }
        self._table |= dict.fromkeys(_ALIASES, self._table["/quit"])

    def described(self) -> dict[str, str]:
        """The commands, and what each does in the reader's language."""
        return {name: tr(text) for name, (text, _) in self._table.items()}

    def run(self, line: str) -> Stream | None:
        """Carry out the command on `line`; gives a stream where the model is to answer.

        Raises ParameterError for an unknown command, and what the command raises.
        """
        # As an IME leaves it: a full-width slash or space is as good.
        name, *rest = line.split(maxsplit=1)
        name, argument = unicodedata.normalize("NFKC", name).lower(), "".join(rest)
        if name not in self._table:
            raise ParameterError(
                "{name} is no command; /help lists them. // sends a text that begins with a slash.",
                name=name,
            )
        return self._table[name][1](argument.strip())

    def _reset(self, _: str) -> None:
        self._chat.reset()
        note("[all turns forgotten]")

    def _role(self, text: str) -> None:
        if text:
            self._chat.reset(text)
            note("[new role, all turns forgotten]")
            return
        show("\n".join(self._chat.role) or tr("(no role)"))

    def _undo(self, _: str) -> None:
        turn = self._chat.undo()
        note("[taken back: {message}]", message=turn.message)

    def _save(self, path: str) -> None:
        size = self._chat.save(_required(path, "/save FILE"))
        note("[saved: {path}]", path=path)
        if size:
            note(
                "[and what /load need not read again: {path}, {size:,.1f} MB]",
                path=kv_path(user_path(path)),
                size=size / 1e6,
            )

    def _load(self, path: str) -> None:
        self._chat.load(_required(path, "/load FILE"))
        note("[{count} turns read]", count=len(self._chat.turns))

    def _set(self, argument: str) -> None:
        name, *rest = argument.split(maxsplit=1) or [""]
        text = "".join(rest)
        if not name:
            for known in _SETTABLE:
                show(f"{known} {getattr(self._chat.params, known)}")
            return
        if name not in _SETTABLE:
            raise ParameterError(
                "{name} cannot be set; known are {known}.", name=name, known=", ".join(_SETTABLE)
            )
        try:
            value = _SETTABLE[name](text)
        except ValueError:
            raise ParameterError(
                "{name} is {value!r}, it must be a number.", name=name, value=text
            ) from None
        self._chat.params = replace(self._chat.params, **{name: value})
        show(f"[{name} {value}]")

    def _quit(self, _: str) -> None:
        raise EOFError

    def _help(self, _: str) -> None:
        for name, text in self.described().items():
            if name not in _ALIASES:
                show(f"{name:<10} {text}")
        note(
            "Enter sends, Alt-Enter begins a new line, Tab completes a command, Ctrl-C stops an "
            "answer, Ctrl-D leaves; // sends a text that begins with a slash."
        )


def _required(path: str, usage: str) -> str:
    if not path:
        raise ParameterError("Name a file: {usage}", usage=usage)
    return path
