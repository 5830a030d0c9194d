"""The message and the deltas of a `/v1/chat/completions` answer: a text, or a call."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from issun.server.calls import Chosen


@dataclass(frozen=True, slots=True)
class CallFields:
    """The fields of an answer that calls a function."""

    call: Chosen
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")

    def message(self, arguments: str) -> dict[str, Any]:
        """The message of an answer."""
        return {"role": "assistant", "content": None, "refusal": None} | self._call(arguments)

    def first_delta(self) -> dict[str, Any]:
        """The first delta."""
        call = self._call("")
        for part in call.get("tool_calls", ()):
            part["index"] = 0
        return {"role": "assistant", "content": None} | call

    def delta(self, text: str) -> dict[str, Any]:
        """The delta for a part of the arguments."""
        if self.call.calling.legacy:
            return {"function_call": {"arguments": text}}
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}

    def finish_reason(self, reason: str | None) -> str | None:
        """The finish reason; `stop` where the request itself named the function."""
        if reason != "stop" or self.call.calling.named:
            return reason
        return "function_call" if self.call.calling.legacy else "tool_calls"

    def _call(self, arguments: str) -> dict[str, Any]:
        function = {"name": self.call.function.name, "arguments": arguments}
        if self.call.calling.legacy:
            return {"function_call": function}
        return {"tool_calls": [{"id": self.id, "type": "function", "function": function}]}


class TextFields:
    """The fields of an answer that is text."""

    def message(self, text: str) -> dict[str, Any]:
        """The message of an answer."""
        return {"role": "assistant", "content": text, "refusal": None}

    def first_delta(self) -> dict[str, Any]:
        """The first delta."""
        return {"role": "assistant", "content": ""}

    def delta(self, text: str) -> dict[str, Any]:
        """The delta for a part of the text."""
        return {"content": text}

    def finish_reason(self, reason: str | None) -> str | None:
        """The finish reason."""
        return reason


Fields = TextFields | CallFields
