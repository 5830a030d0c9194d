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

_HIGHEST_USUAL_TEMPERATURE = 2  # of most services; SamplingParams allows up to 100
_ALIASES = ("/exit", "/bye")  # other programs' names for /quit


class Commands:
    """Runs commands on a conversation; some of them generate an answer."""

    def __init__(self, conversation: Conversation) -> None:
        self._chat = conversation
        self._table: dict[str, tuple[str, Callable[[str], Stream | None]]] = {
            "/reset": (mark("start a new conversation"), self._reset),
            "/role": (mark("show or change the role: /role TEXT"), self._role),
            "/undo": (mark("remove the last turn"), self._undo),
            "/retry": (mark("answer the last message again"), lambda _: self._chat.retry()),
            "/continue": (
                mark("continue an answer that was stopped"),
                lambda _: self._chat.resume(),
            ),
            "/save": (mark("save the conversation to a new file: /save FILE"), self._save),
            "/load": (mark("load a conversation: /load FILE"), self._load),
            "/set": (mark("show or change sampling parameters: /set temperature 0.5"), self._set),
            "/quit": (mark("exit (also /exit, /bye)"), self._quit),
            "/help": (mark("show this list"), self._help),
        }
        self._table |= dict.fromkeys(_ALIASES, self._table["/quit"])

    def described(self) -> dict[str, str]:
        """The commands with their descriptions in the reader's language."""
        return {name: tr(text) for name, (text, _) in self._table.items()}

    def run(self, line: str) -> Stream | None:
        """Run the command in `line`; returns a stream if the command generates an answer.

        Raises ParameterError for an unknown command, and what the command itself raises.
        """
        # With an IME, the slash and the space may be full-width.
        name, *rest = line.split(maxsplit=1)
        name, argument = unicodedata.normalize("NFKC", name).lower(), "".join(rest)
        if name not in self._table:
            raise ParameterError(
                "There is no command {name}; /help lists the commands. To send a message that "
                "begins with a slash, begin it with //.",
                name=name,
            )
        return self._table[name][1](argument.strip())

    def _reset(self, _: str) -> None:
        self._chat.reset()
        note("[new conversation]")

    def _role(self, text: str) -> None:
        if text:
            self._chat.reset(text)
            note("[role changed, new conversation]")
            return
        show("\n".join(self._chat.role) or tr("(no role)"))

    def _undo(self, _: str) -> None:
        turn = self._chat.undo()
        note("[removed: {message}]", message=turn.message)

    def _save(self, path: str) -> None:
        size = self._chat.save(_required(path, tr("/save FILE")))
        note("[saved: {path}]", path=path)
        if size:
            note(
                "[saved the KV cache, so that /load need not compute it: {path}, {size:,.1f} MB]",
                path=kv_path(user_path(path)),
                size=size / 1e6,
            )

    def _load(self, path: str) -> None:
        self._chat.load(_required(path, tr("/load FILE")))
        note("[turns loaded: {count}]", count=len(self._chat.turns))

    def _set(self, argument: str) -> None:
        name, *rest = argument.split(maxsplit=1) or [""]
        text = "".join(rest)
        if not name:
            for known in _SETTABLE:
                value = getattr(self._chat.params, known)
                shown = tr("none") if value is None else value
                show(f"{known} {shown}")
            return
        if name not in _SETTABLE:
            raise ParameterError(
                "{name} cannot be set; the parameters are {known}.",
                name=name,
                known=", ".join(_SETTABLE),
            )
        try:
            value = _SETTABLE[name](text)
        except ValueError:
            raise ParameterError(
                "{name} is {value!r}, it must be a number.", name=name, value=text
            ) from None
        self._chat.params = replace(self._chat.params, **{name: value})
        show(f"[{name} {value}]")
        if name == "temperature" and value > _HIGHEST_USUAL_TEMPERATURE:
            note("[Above a temperature of 2 answers are mostly random; 0.5 to 1 is usual.]")

    def _quit(self, _: str) -> None:
        raise EOFError

    def _help(self, _: str) -> None:
        for name, text in self.described().items():
            if name not in _ALIASES:
                show(f"{name:<10} {text}")
        note(
            "Enter sends, Alt-Enter starts a new line, Tab completes a command, Ctrl-C "
            "stops an answer, Ctrl-D exits. To send a message that begins with a slash, "
            "begin it with //."
        )


def _required(path: str, usage: str) -> str:
    if not path:
        raise ParameterError("Give a file name: {usage}", usage=usage)
    return path
