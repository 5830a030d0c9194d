"""The chunks of a streamed answer of a server with the OpenAI API."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any

import msgspec


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None  # what Ollama and vLLM call `reasoning_content`


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: Any = None
    finish_reason: Any = None

    def has_text(self) -> bool:
        delta = self.delta or _Delta()
        return bool(self.text or delta.content or delta.reasoning_content or delta.reasoning)


class Chunk(msgspec.Struct):
    """An event of the stream; whatever else it has is ignored."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None  # some servers send a null in every chunk

    @property
    def has_text(self) -> bool:
        """Whether a choice has text or reasoning."""
        return any(choice.has_text() for choice in self.choices or ())

    @property
    def finish_reason(self) -> Any:
        """Why the answer has ended; None while it goes on."""
        return next(filter(None, (choice.finish_reason for choice in self.choices or ())), None)

    @property
    def tokens(self) -> Any:
        """What the server gives as the number of tokens so far; None if it gives none."""
        return self.usage.get("completion_tokens") if isinstance(self.usage, dict) else None


def parse_chunk(data: bytes | str) -> Chunk:
    """The chunk that an event's data hold; raises HTTPException."""
    try:
        content = json.loads(data)
    except RecursionError:
        content = None
    except ValueError as error:
        raise HTTPException("the stream has a chunk that is not JSON") from error
    try:
        return msgspec.convert(content, Chunk)
    except (msgspec.ValidationError, RecursionError) as error:
        raise HTTPException("a chunk has another form than the OpenAI API's") from error
