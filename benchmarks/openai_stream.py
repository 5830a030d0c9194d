"""Times a streamed answer of a server with the OpenAI API, chunk by chunk."""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, IncompleteRead
from numbers import Real
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from issun.benchmarks.chunks import SHOWN, Chunk, read_chunks
from issun.benchmarks.errors import BenchError, one_line
from issun.benchmarks.timed_http import TimedResponse, request
from issun.runtime.errors import check_range

_MAX_BODY = 1 << 20  # bytes of a refusal
_MAX_TIMEOUT = 86_400  # seconds
_PATH = "/%:@!$&'()*+,;="  # what a path has besides letters and digits
_MARGIN = 8  # tokens above those asked for that a usage may count, such as the end token
_LINGER = 1.0  # seconds after the last text in which a usage may come
_FAILURES = ("error", "abort", "aborted", "cancelled", "canceled")  # finish reasons
NO_TEXT = "no text"
# A server that refuses a request gets it without one of these, and then without both.
_OPTIONAL: dict[str, Any] = {
    "ignore_eos": True,
    "stream_options": {"include_usage": True},
}


@dataclass(slots=True)
class Answer:
    """The times of an answer in seconds: of the request, and of each chunk that has text.

    `tokens` is from the server's usage; None if the server sent none that can be true. `error` is
    empty if the answer is complete.
    """

    started: float = 0.0
    chunks: list[float] = field(default_factory=list)
    tokens: int | None = None
    error: str = ""

    @property
    def new_tokens(self) -> int:
        """The tokens by usage, else the chunks."""
        return len(self.chunks) if self.tokens is None else self.tokens


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Server:
    """A server, the endpoint that is measured, and the model that is asked for."""

    def __init__(self, url: str, *, model: str | None = None, timeout: float = 120.0) -> None:
        """Find the model and which fields the server accepts, by a first answer of a few tokens.

        `url` ends in the endpoint (`/v1/completions`), in `/v1`, or in neither; by default
        `/v1/chat/completions` is measured. A query is sent with every request. `timeout` is the
        most seconds of an answer. The variable OPENAI_API_KEY is sent as the key. Raises BenchError
        if the server does not answer, and ParameterError for a timeout that is none.
        """
        parts = _split(url)
        check_range("timeout", timeout, Real, 0, _MAX_TIMEOUT, exclusive=True)
        path = quote(parts.path.rstrip("/"), _PATH)
        if not path.endswith("/completions"):
            path += ("" if path.endswith("/v1") else "/v1") + "/chat/completions"
        self.url, self._parts, self._path, self._timeout = url, parts, path, timeout
        self._query = parts.query and "?" + quote(parts.query, _PATH + "?")
        self.chat = path.endswith("/chat/completions")
        self._headers = _headers()
        self.model = model or self._first_model()
        self.refused: list[str] = []  # optional fields that the server does not accept
        self._fields: dict[str, Any] = {}
        self._find_fields()

    def _find_fields(self) -> None:
        names = tuple(_OPTIONAL)
        for kept in (names, names[1:], names[:1], ()):
            self._fields = {name: _OPTIONAL[name] for name in kept}
            answer = self.answer("こんにちは。", 2)
            if not answer.error.startswith(("status 400", "status 422")):
                break
        self.refused = [name for name in names if name not in kept]
        self._check_key(answer.error)
        if answer.error not in ("", NO_TEXT):  # two tokens may be a part of a character
            raise BenchError("{url} does not answer: {reason}", url=self.url, reason=answer.error)

    def _first_model(self) -> str:
        root = self._path.partition("/chat/completions")[0].removesuffix("/completions")
        try:
            with self._request("GET", f"{root}/models") as response:
                _check(response)
                return msgspec.convert(json.loads(response.read()), _Models).data[0].id
        except (OSError, HTTPException) as error:
            reason = self._reason(error)
            self._check_key(reason)
            if reason.startswith("status"):
                raise BenchError(
                    "{url} does not list its models ({reason}): name one with --model.",
                    url=self.url,
                    reason=reason,
                ) from error
            raise BenchError(
                "{url} does not answer: {reason}", url=self.url, reason=reason
            ) from error
        except (ValueError, LookupError, RecursionError) as error:
            raise BenchError(
                "{url} does not list its models: name one with --model.", url=self.url
            ) from error

    def _check_key(self, reason: str) -> None:
        if reason.startswith(("status 401", "status 403")):
            raise BenchError(
                "{url} refuses the request ({reason}): give it a key that it accepts in the "
                "variable OPENAI_API_KEY.",
                url=self.url,
                reason=reason,
            )

    def answer(self, prompt: str, tokens: int) -> Answer:
        """Stream an answer of at most `tokens` tokens; a failure is in its `error`."""
        asked = (
            {"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}
        )
        body = {
            "model": self.model,
            **asked,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
        answer = Answer(time.perf_counter())
        try:
            self._read(answer, json.dumps(body | self._fields).encode(), tokens + _MARGIN)
        except IncompleteRead:
            answer.error = "the stream ended early"
        except (OSError, HTTPException) as error:
            answer.error = self._reason(error)
        if not answer.error and not answer.chunks:
            answer.error = NO_TEXT
        return answer

    def _request(
        self, method: str, path: str, body: bytes | None = None
    ) -> AbstractContextManager[TimedResponse]:
        path += self._query
        return request(self._parts, method, path, body, self._headers, seconds=self._timeout)

    def _reason(self, error: OSError | HTTPException) -> str:
        if isinstance(error, TimeoutError):
            return f"not finished after {self._timeout:g} s"
        return one_line(error)[:SHOWN] or type(error).__name__

    def _read(self, answer: Answer, body: bytes, most: int) -> None:
        finished = False
        with self._request("POST", self._path, body) as response:
            _check(response)
            try:
                for chunk in read_chunks(response):
                    if chunk is None:
                        return
                    if _take(answer, chunk, most):
                        finished = True  # but for a usage; some servers send no end mark
                        soon = time.perf_counter() + _LINGER
                        response.deadline = min(response.deadline, soon)
            except (OSError, IncompleteRead):
                if not finished:
                    raise
        if not finished:
            raise HTTPException("the stream ended early")


def _check(response: HTTPResponse) -> None:
    """Raise HTTPException, with the start of a refusal, unless the body can be read."""
    coding = response.headers.get("Content-Encoding", "identity").lower()
    if response.status != 200:
        try:
            body = response.read(_MAX_BODY) if coding == "identity" else b""
        except IncompleteRead as error:
            body = error.partial
        text = one_line(body.decode("utf-8", "replace"))[:SHOWN] or response.reason
        raise HTTPException(f"status {response.status}: {text}")
    if coding != "identity":
        raise HTTPException(f"the answer is compressed ({coding}), which it was not asked to be")


def _split(url: str) -> SplitResult:
    """The parts of a server's URL; raises BenchError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and url.isprintable()
        (parts.hostname or "").encode("idna")  # as a request does
    except ValueError:  # brackets without an address, a port above 65535, or a part of no name
        good = False
    if not good:
        raise BenchError("{url!r} is no URL of a server: write http://HOST:PORT.", url=url)
    if "@" in parts.netloc:  # the results name the URL, which must not have a password
        raise BenchError(
            "The URL of {host} has a user name or password: leave it out, and give a key in the "
            "variable OPENAI_API_KEY.",
            host=parts.hostname,
        )
    return parts


def _headers() -> dict[str, str | bytes]:
    """The headers of a request, with the user's key; raises BenchError if none can carry it."""
    headers: dict[str, str | bytes] = {"Content-Type": "application/json", "Connection": "close"}
    if key := os.environ.get("OPENAI_API_KEY", "").strip():  # files of Windows end with "\r"
        if not key.isprintable():
            raise BenchError("The API key has characters that an HTTP header cannot carry.")
        headers["Authorization"] = f"Bearer {key}".encode()
    return headers


def _take(answer: Answer, chunk: Chunk, most: int) -> bool:
    """Take the text and usage of a chunk; returns whether the answer is finished.

    Raises HTTPException for a chunk that says that the answer has failed.
    """
    if chunk.error:
        raise HTTPException(f"the stream has an error: {chunk.error}")
    if chunk.has_text:
        answer.chunks.append(time.perf_counter())
    if (tokens := chunk.tokens) is not None:  # the last usage is that of the whole answer
        answer.tokens = tokens if type(tokens) is int and 1 <= tokens <= most else None
    if chunk.finish_reason in _FAILURES:
        raise HTTPException(f"the server gave up: its finish reason is {chunk.finish_reason!r}")
    return chunk.finish_reason is not None
