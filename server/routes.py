"""The small routes: models, tokens, health, metrics and the page's files."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from issun.runtime.demonstration import is_demonstration
from issun.server.body import invalid
from issun.server.errors import ApiError, NotFoundError
from issun.server.fitting import fit
from issun.server.messages import parse_dialogue
from issun.server.metrics import resident_bytes
from issun.server.service import Service, json_response, read_body, service_of
from issun.server.types import DetokenizeRequest, TokenizeRequest

_PAGE = Path(__file__).with_name("page")
_REPORTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
_ROLES = ("bos", "eos", "unk", "pad", "sep")
_TOKENIZERS = {
    "t5": "T5Tokenizer",
    "llama": "LlamaTokenizer",
    "json": "PreTrainedTokenizerFast",
}
_KINDS = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


async def models(request: Request) -> Response:
    """The list of models: the bundle, and the bundle with each adapter."""
    service = service_of(request)
    listed = [_model(service, name) for name in service.names]
    return json_response({"object": "list", "data": listed})


async def model(request: Request) -> Response:
    """The model by its name."""
    service = service_of(request)
    name = request.path_params["name"]
    service.adapter_of(name)
    return json_response(_model(service, name))


def _model(service: Service, name: str) -> dict[str, Any]:
    manifest = service.model.manifest
    sampling = asdict(service.model.default_params)
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "issun",
        "issun": {
            "version": version("issun"),
            "family": manifest.architecture.family,
            "precision": manifest.precision.name,
            "demonstration": is_demonstration(manifest),
            "context": manifest.architecture.n_positions,
            "sampling": {name: sampling[name] for name in _REPORTED},
        },
    }


async def tokenize(request: Request) -> Response:
    """The token ids of a text, or of the prompt made from messages."""
    service = service_of(request)
    body = await read_body(request, TokenizeRequest)
    service.adapter_of(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError("Give either prompt or messages.")
    ids = await run_in_threadpool(_ids, service, body)
    limit = service.model.decoder.n_positions
    return json_response({"tokens": ids, "count": len(ids), "max_model_len": limit})


def _ids(service: Service, body: TokenizeRequest) -> list[int]:
    """The ids of a text.

    Special tokens in the text are plain text unless `add_special_tokens` is given; then the ids
    are those of transformers' tokenizer, with or without the tokens that it adds: the end token
    of a T5Tokenizer, or what begins a text.
    """
    if body.messages is not None:
        if body.add_special_tokens:
            raise invalid(
                "add_special_tokens", "the prompt made from messages has its own: send false."
            )
        return fit(service, parse_dialogue(body.messages), 1).ids
    text, wanted = body.prompt or "", body.add_special_tokens
    if wanted is None:
        return service.model.tokenizer.encode(text)
    ids = service.model.tokenizer.encode(text, special=True)
    tokens = service.model.manifest.tokens
    if not wanted:
        return ids
    if tokens.kind != "t5":
        return [*tokens.begin, *ids]
    return ids if tokens.eos is None or ids[-1:] == [tokens.eos] else [*ids, tokens.eos]


async def tokenizer_info(request: Request) -> Response:
    """The special tokens by role, as in vLLM."""
    model = service_of(request).model
    roles = {role: getattr(model.manifest.tokens, role) for role in _ROLES}
    return json_response(
        {
            "tokenizer_class": _TOKENIZERS[model.manifest.tokens.kind],
            "model_max_length": model.decoder.n_positions,
            "chat_template": None,
        }
        | {
            f"{role}_token": None if token is None else model.tokenizer.piece(token).decode()
            for role, token in roles.items()
        }
    )


async def detokenize(request: Request) -> Response:
    """The text of token ids."""
    service = service_of(request)
    body = await read_body(request, DetokenizeRequest)
    service.adapter_of(body.model)
    text = await run_in_threadpool(service.model.tokenizer.decode, body.tokens)
    return json_response({"prompt": text})


async def health(request: Request) -> Response:
    """Whether the server is up, and its load."""
    service = service_of(request)
    scheduler = service.scheduler
    return json_response(
        {
            "status": "ok",
            "memory_bytes": int(resident_bytes()),
            "running": scheduler.running,
            "queued": scheduler.queued,
        }
    )


async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format."""
    return Response(
        service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def page(request: Request) -> Response:
    """The chat page and its files."""
    name = request.path_params.get("name", "index.html")
    known = {path.name: path for path in _PAGE.iterdir()} if _PAGE.is_dir() else {}
    if name not in known:
        raise NotFoundError("There is no page {name!r}.", name=str(name)[:100])
    kind = _KINDS.get(known[name].suffix, "text/html")
    # After an update, old modules must not be mixed with new ones.
    return FileResponse(known[name], media_type=kind, headers={"Cache-Control": "no-cache"})
