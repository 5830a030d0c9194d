"""The output item of a `/v1/responses` response and its events: a text or a function call."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


def _new(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class TextOutput:
    """A message."""

    id: str = field(default_factory=lambda: _new("msg"))

    def item(self, text: str, status: str) -> dict[str, Any]:
        """The item."""
        return self._item([_part(text)], status)

    def opening_events(self) -> Iterator[dict[str, Any]]:
        """Events before the first piece."""
        yield _about_item("added", self._item([], "in_progress"))
        yield self._event("content_part.added", part=_part(""))

    def delta_event(self, text: str) -> dict[str, Any]:
        """The event of a piece."""
        return self._event("output_text.delta", delta=text, logprobs=[])

    def closing_events(self, text: str, status: str) -> Iterator[dict[str, Any]]:
        """Events after the last piece."""
        yield self._event("output_text.done", text=text, logprobs=[])
        yield self._event("content_part.done", part=_part(text))
        yield _about_item("done", self.item(text, status))

    def _item(self, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        item = {"id": self.id, "type": "message", "role": "assistant", "status": status}
        return {**item, "content": content}

    def _event(self, kind: str, /, **more: object) -> dict[str, Any]:
        position = {"item_id": self.id, "output_index": 0, "content_index": 0}
        return {"type": f"response.{kind}", **position, **more}


@dataclass(frozen=True, slots=True)
class CallOutput:
    """A call of a function."""

    name: str
    id: str = field(default_factory=lambda: _new("fc"))
    call_id: str = field(default_factory=lambda: _new("call"))

    def item(self, text: str, status: str) -> dict[str, Any]:
        """The item."""
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": text,
        }

    def opening_events(self) -> Iterator[dict[str, Any]]:
        """Events before the first piece."""
        yield _about_item("added", self.item("", "in_progress"))

    def delta_event(self, text: str) -> dict[str, Any]:
        """The event of a piece."""
        return self._event("delta", delta=text)

    def closing_events(self, text: str, status: str) -> Iterator[dict[str, Any]]:
        """Events after the last piece."""
        yield self._event("done", name=self.name, arguments=text)
        yield _about_item("done", self.item(text, status))

    def _event(self, kind: str, /, **more: object) -> dict[str, Any]:
        name = f"response.function_call_arguments.{kind}"
        return {"type": name, "item_id": self.id, "output_index": 0, **more}


Output = TextOutput | CallOutput


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _about_item(name: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": f"response.output_item.{name}", "output_index": 0, "item": item}
