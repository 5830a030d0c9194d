"""Errors for paths that this server does not have, with hints for those of other servers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from issun.server.errors import NotFoundError

_DIALECTS = "Set the client to the OpenAI API with the base URL /v1."
_HINTS = (
    (
        r"(/v1|/api)?/(embed|embeddings?)(/.*)?",
        "This model has no embeddings for retrieval: use an embedding model.",
    ),
    (
        r"(/v1)?/(rerank|score|moderations|classify|pooling)|/v[12]/rerank",
        "This model generates text and does not score it.",
    ),
    (r"(/v1)?/(audio|images|videos|realtime)(/.*)?", "This server only handles text."),
    (r"/api/.*", f"This is not an Ollama server. {_DIALECTS}"),
    (r"(/v1)?/messages(/.*)?|/v1/complete", f"This is not an Anthropic server. {_DIALECTS}"),
    (r"/v1beta/.*", f"This is not a Gemini server. {_DIALECTS}"),
    (r"/openai/.*|/engines/.*|/v1/engines.*", _DIALECTS),
    (
        r"/(completion|infill|props|slots|apply-template|embedding|generate|generate_stream|info)",
        f"This is not a llama.cpp or TGI server. {_DIALECTS}",
    ),
    (
        r"/v1/responses/.*|/v1/(assistants|threads|conversations|files|uploads|batches|vector_stores|fine_tuning)"
        r"(/.*)?",
        "This server stores nothing between requests.",
    ),
)


def not_found(path: str, served: Sequence[str]) -> NotFoundError:
    """The error for a path that is not served; its message lists the `served` ones."""
    hint = next((text for pattern, text in _HINTS if re.fullmatch(pattern, path)), "")
    return NotFoundError(
        "There is nothing at {path}. {hint}This server has {served}.",
        path=path[:100],
        hint=hint and f"{hint} ",
        served=", ".join(served),
    )
