"""The chunks of a streamed answer of a server with the OpenAI API."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any

import msgspec

from issun.benchmarks.errors import one_line

_MAX_LINE, _MAX_BODY = 1 << 20, 10_000  # characters of a line, and of what is no stream
SHOWN = 200  # characters of an error
_OTHER_FIELD = re.compile(r"(event|id|retry)?:")  # or a comment


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


def read_chunks(response: HTTPResponse) -> Iterator[Chunk | None]:
    """The chunks of a stream; None for its end mark.

    Raises HTTPException for a chunk that cannot be read, and for a body that is no stream.
    """
    body, is_stream = "", False
    lines = io.TextIOWrapper(response, "utf-8-sig", "replace")  # ends a line at a lone CR too
    while line := lines.readline(_MAX_LINE):
        data = line.removeprefix("data:").strip()
        if line.startswith("data:"):
            is_stream = True
            if data == "[DONE]":
                yield None
                return
            if data:
                yield _parse(data)
        elif not _OTHER_FIELD.match(line):
            body = (body + line)[:_MAX_BODY]
    if body.strip() and not is_stream:
        raise HTTPException(f"the answer is no stream: {one_line(body)[:SHOWN]}")


def _parse(data: str) -> Chunk:
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
