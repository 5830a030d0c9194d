"""What to say to requests for addresses of other servers, which clients try too."""

from __future__ import annotations

import re
from collections.abc import Sequence

from issun.server.errors import NotFoundError

_DIALECTS = "Set the client to the OpenAI dialect with the base URL /v1."
_HINTS = (
    (
        r"(/v1|/api)?/(embed|embeddings?)(/.*)?",
        "A GPT's states are no embeddings: ask a model that was trained for them.",
    ),
    (
        r"(/v1)?/(rerank|score|moderations|classify|pooling)|/v[12]/rerank",
        "This model writes text and rates none.",
    ),
    (r"(/v1)?/(audio|images|videos|realtime)(/.*)?", "Only text is read and written here."),
    (r"/api/.*", f"This is no Ollama server. {_DIALECTS}"),
    (r"(/v1)?/messages(/.*)?|/v1/complete", f"This is no Anthropic server. {_DIALECTS}"),
    (r"/v1beta/.*", f"This is no Gemini server. {_DIALECTS}"),
    (r"/openai/.*|/engines/.*|/v1/engines.*", _DIALECTS),
    (
        r"/(completion|infill|props|slots|apply-template|embedding|generate|generate_stream|info)",
        f"This is no llama.cpp or TGI server. {_DIALECTS}",
    ),
    (
        r"/v1/responses/.*|/v1/(assistants|threads|conversations|files|uploads|batches|vector_stores|fine_tuning)"
        r"(/.*)?",
        "Nothing is kept here between requests.",
    ),
)


def not_found(path: str, served: Sequence[str]) -> NotFoundError:
    """The error of an address that is not served, with those that are."""
    hint = next((text for pattern, text in _HINTS if re.fullmatch(pattern, path)), "")
    return NotFoundError(
        "There is nothing at {path}. {hint}This server answers {served}.",
        path=path[:100],
        hint=hint and f"{hint} ",
        served=", ".join(served),
    )
