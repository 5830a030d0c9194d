"""The ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.errors import IssunError
from issun.runtime.model import Model
from issun.server import routes
from issun.server.chat import chat_completions
from issun.server.completions import completions
from issun.server.description import description
from issun.server.errors import ApiError, MethodError, ServerError
from issun.server.front import Front, request_id
from issun.server.guard import Guard
from issun.server.metrics import Metrics
from issun.server.options import ServerOptions
from issun.server.origins import Cors, origin_of
from issun.server.responses import responses
from issun.server.scheduler import Scheduler
from issun.server.service import Service, error_response
from issun.server.unknown_paths import not_found

_MAX_SLOTS = 16  # if neither slots nor memory is given
_SHARE = 4  # the KV cache gets 1/_SHARE of the free memory by default


def make_app(model: Model, options: ServerOptions) -> Starlette:
    """The application that serves `model`.

    Raises ServerError when the KV cache has no room for a single slot.
    """
    metrics = Metrics()
    scheduler = Scheduler(
        model,
        metrics,
        slots=count_slots(model, options),
        max_queue=options.max_queue,
        deadline=options.deadline,
        drafting=options.drafting,
        prefill_first=options.prefill_first,
    )
    service = Service(
        model=model,
        name=model.manifest.source.name.rstrip("/").split("/")[-1],
        options=options,
        metrics=metrics,
        scheduler=scheduler,
        started=int(time.time()),
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        scheduler.stop()
        model.preparation.stop()
        await run_in_threadpool(scheduler.join)
        model.preparation.resume()  # the caller may use the model again

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/responses", responses, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/v1/models/{name:path}", routes.model),
            Route("/tokenize", routes.tokenize, methods=["POST"]),
            Route("/detokenize", routes.detokenize, methods=["POST"]),
            Route("/tokenizer_info", routes.tokenizer_info),
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
            Route("/openapi.json", description),
            Route("/", routes.page),
            Route("/page/{name}", routes.page),
        ],
        middleware=_middleware(options),
        exception_handlers={
            IssunError: _on_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_gone,
            Exception: _on_error,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def count_slots(model: Model, options: ServerOptions) -> int:
    """How many answers run at the same time; raises ServerError if they do not fit into memory."""
    if not isinstance(model.decoder, IssunDecoder):
        raise ServerError("A bundle exported with Optimum cannot be served: export it with issun.")
    size = model.decoder.slot_bytes
    machine = psutil.virtual_memory()
    free: int = machine.available
    if options.kv_memory is not None and options.kv_memory > machine.total:
        raise ServerError(
            "--kv-memory is {asked:,.0f} MB, but this computer has {total:,.0f} MB.",
            asked=options.kv_memory / 1e6,
            total=machine.total / 1e6,
        )
    if options.kv_memory is None and options.slots is None:
        # Memory is only allocated as slots fill up, so one slot is always allowed.
        return max(1, min(free // _SHARE // size, _MAX_SLOTS))
    memory = options.kv_memory or free
    room = memory // size
    slots = options.slots or max(1, min(room, _MAX_SLOTS))
    if room < slots:
        raise ServerError(
            "{wanted} slots of {size:,.0f} MB do not fit into {memory:,.0f} MB for the KV "
            "cache: raise --kv-memory, lower --slots, or use an int8 KV cache.",
            wanted=slots,
            size=size / 1e6,
            memory=memory / 1e6,
        )
    return slots


def _middleware(options: ServerOptions) -> list[Middleware]:
    origins = [origin for url in options.allowed_origins if (origin := origin_of(url))]
    cors = [Middleware(Cors, origins=origins)] if origins else []
    return [Middleware(Front), *cors, Middleware(Guard, options=options)]


async def _on_error(request: Request, error: Exception) -> Response:
    response = error_response(error)
    response.headers["X-Request-Id"] = request_id(request.headers)  # unhandled errors bypass Front
    return response


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return error_response(error)
    if error.status_code == 404:
        paths = [route.path for route in request.app.routes if isinstance(route, Route)]
        served = [path for path in paths if path.startswith("/v1/") and "{" not in path]
        return error_response(not_found(request.url.path, served))
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return error_response(
            MethodError(
                "{path} does not take {method}, it takes {allow}.",
                path=request.url.path[:100],
                method=request.method[:20],
                allow=allow,
            )
        )
    return error_response(ApiError("The request is malformed."))


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client has disconnected
