"""Answers rows with the server's application, in process and without a socket."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from issun.cluster.journal import Answer
from issun.cluster.loading import LoadOptions, WorkerInfo, load
from issun.cluster.requests import (
    Kind,
    Request,
    Template,
    batch_request,
    decode,
    digest_of,
    kind_in,
    output_line,
    plain,
    simple_request,
)
from issun.cluster.rows import Row
from issun.runtime.constraint.compiling import MAX_WAITING
from issun.runtime.errors import IssunError, check_seed
from issun.server.app import make_app
from issun.server.errors import as_api_error, error_object
from issun.server.options import ServerOptions

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions(LoadOptions):
    """What a worker loads, and how it answers.

    `kind` is that of the file, see `kind_in`; `defaults` are body fields that a row can set.
    """

    kind: Kind = "simple"
    seed: int = 0
    template: Template | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check numbers and switches; what JSON will hold becomes Python's own numbers."""
        LoadOptions.__post_init__(self)
        check_seed(self.seed)
        object.__setattr__(self, "seed", plain(self.seed))
        defaults = {name: plain(value) for name, value in self.defaults.items()}
        object.__setattr__(self, "defaults", defaults)


class Worker:
    """A loaded bundle and its application; several threads may call `answer`.

    Raises what `Model.load` and `make_app` raise.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._model, self.info = load(options)
        slots = options.slots
        # Drafts round attention differently, and an answer must not depend on how many others run.
        self._app = make_app(
            self._model,
            ServerOptions(
                slots=slots, drafting=0, prefill_first=True, max_queue=1 << 30, deadline=math.inf
            ),
        )
        self._defaults = dict(options.defaults)
        if options.adapter:
            *_, name = self._app.state.service.names  # the bundle's name, and that with the adapter
            self._defaults.setdefault("model", name)
        # The API's own default is 16 tokens.
        most = {"max_tokens": self._model.default_params.max_new_tokens}
        self._simple_defaults = most | self._defaults
        # More would be refused, as by a busy server.
        self._app.state.service.preparing.total_tokens = MAX_WAITING
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open = asyncio.Semaphore(2 * slots)  # bounds the memory of many rows
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._run(self._lifespan.__aenter__())

    def ready(self) -> WorkerInfo:
        """Return what this worker runs."""
        return self.info

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answer to each row; a row that is wrong, or fails, gets an error."""
        return self._run(self._answer_all(rows))

    def close(self) -> None:
        """End the application and close the model."""
        self._run(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._model.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _answer_all(self, rows: Sequence[Row]) -> list[Answer]:
        return await asyncio.gather(*(self._answer(index, raw) for index, raw in rows))

    async def _answer(self, index: int, raw: bytes) -> Answer:
        async with self._open:
            row: dict[str, Any] = {}
            digest = digest_of(self._options.seed, index, row)
            kind = self._options.kind
            try:
                row = decode(raw)
                digest, kind = digest_of(self._options.seed, index, row), kind_in(kind, row)
                status, body = await post(self._app, *self._request(kind, row, digest))
            except IssunError as error:
                found = as_api_error(error)
                status, body = found.status, error_object(found)
        tokens = body["usage"]["completion_tokens"] if status == 200 else 0
        line = output_line(kind, row, digest, status, body)
        return Answer(index, status, line, tokens)

    def _request(self, kind: Kind, row: Mapping[str, Any], digest: str) -> Request:
        if kind == "batch":
            return batch_request(row, self._defaults, digest)
        return simple_request(
            row, self._simple_defaults, digest, self._options.template, self._model.prompt
        )


async def post(app: Any, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Call an ASGI application; return the status and the body of its response, which is JSON."""
    pending = [{"type": "http.request", "body": msgspec.json.encode(body)}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.Event().wait()  # nobody disconnects
        return pending.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status, msgspec.json.decode(b"".join(part.get("body", b"") for part in sent[1:]))
