"""The OpenAPI description, generated from the request types."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from issun.server.items import ResponsesRequest
from issun.server.service import json_response
from issun.server.types import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest

_POSTS = {
    "/v1/chat/completions": ("Answer the last message of a conversation.", ChatRequest),
    "/v1/completions": ("Continue one or several prompts.", CompletionRequest),
    "/v1/responses": ("Answer a request; nothing is stored.", ResponsesRequest),
    "/tokenize": ("The token ids of a text or of messages.", TokenizeRequest),
    "/detokenize": ("The text of token ids.", DetokenizeRequest),
}
_GETS = {
    "/v1/models": "The model that is served.",
    "/tokenizer_info": "The special tokens by role.",
    "/health": "Whether the server is up, and its load.",
}
_REFUSED = (400, 401, 403, 404, 408, 413, 429, 503)
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


async def description(request: Request) -> Response:
    """Serve the description as JSON."""
    return json_response(openapi())


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 description."""
    kinds = [kind for _, kind in _POSTS.values()]
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {
        path: {"get": {"summary": text, "responses": _responses()}} for path, text in _GETS.items()
    }
    for (path, (text, _)), schema in zip(_POSTS.items(), schemas, strict=True):
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths[path] = {"post": {"summary": text, "requestBody": body, "responses": _responses()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "issun", "version": version("issun")},
        "paths": paths,
        "components": {
            "schemas": components | {"Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _responses() -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answer = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}
    return {"200": {"description": "The answer.", "content": answer}} | {
        str(status): {"description": "Refused.", "content": error} for status in _REFUSED
    }
