"""Fits a conversation into the context so that later prompts share its prefix."""

from __future__ import annotations

import hashlib

from issun.runtime.errors import ContextError
from issun.runtime.text.prompt import FittedPrompt
from issun.server.messages import Dialogue
from issun.server.service import Service

_REMEMBERED = 1024  # conversations


def fit(service: Service, dialogue: Dialogue, max_new_tokens: int) -> FittedPrompt:
    """The prompt of a conversation, without the turns that its previous prompt left out either.

    Successive prompts of a long conversation so share a prefix, which the KV cache still holds. If
    the answer may be as long as the context, any room that is left suffices. Raises ContextError.
    """
    try:
        return _fit(service, dialogue, max_new_tokens)
    except ContextError:
        if max_new_tokens < service.model.decoder.n_positions:
            raise
        return _fit(service, dialogue, 1)


def _fit(service: Service, dialogue: Dialogue, max_new_tokens: int) -> FittedPrompt:
    prompts = service.model.prompts
    role = prompts.system_lines(dialogue.system) if dialogue.system.strip() else []
    first = repr((dialogue.system, dialogue.turns[:1])).encode("utf-8", "replace")
    key = hashlib.sha256(first).digest()
    fitted = prompts.chat(
        role,
        dialogue.turns,
        dialogue.message,
        max_new_tokens=max_new_tokens,
        dropped=service.dropped.get(key, 0),
        answer_prefix=dialogue.beginning,
    )
    service.dropped[key] = fitted.dropped_turns
    service.dropped.move_to_end(key)
    if len(service.dropped) > _REMEMBERED:
        service.dropped.popitem(last=False)
    return fitted
