"""Request fields that are accepted without effect, and the values for which that is safe.

Null, false and empty values are accepted under any name. Any other unknown field is rejected with
its path and, where there is one, the name of the field to use instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def _anything(value: Any) -> bool:
    """Accept every value: the field is an annotation or concerns a feature this server lacks."""
    return True


def _one_of(*harmless: Any) -> Check:
    """Accept the values that leave the answer unchanged."""
    return lambda value: value in harmless


def _only(*names: str) -> Check:
    """Accept an object that has no keys except these."""
    return lambda value: isinstance(value, dict) and value.keys() <= set(names)


_REASONING: Mapping[str, Check] = dict.fromkeys(  # the model does not reason
    (
        "reasoning_effort",
        "reasoning",
        "reasoning_format",
        "include_reasoning",
        "thinking",
        "thinking_budget",
        "enable_thinking",
        "think",
        "verbosity",
    ),
    _anything,
)

SAMPLING: Mapping[str, Check] = {
    **_REASONING,
    **dict.fromkeys(  # annotations for the client's own account, proxy or cache
        (
            "user",
            "metadata",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "service_tier",
            "request_id",
            "priority",
            "cache_prompt",
            "keep_alive",
            "ttl",
            "guided_decoding_backend",
        ),
        _anything,
    ),
    "usage": _only("include"),  # usage is always reported
    "best_of": _one_of(1),
    # Parameters of other engines, with the values that leave the answer unchanged.
    "skip_special_tokens": _one_of(True),
    "spaces_between_special_tokens": _one_of(True),
    "detokenize": _one_of(True),
    "length_penalty": _one_of(1),
    "repeat_penalty": _one_of(1),
    "repeat_last_n": _one_of(-1, 0, 64),
    "tfs_z": _one_of(1),
    "typ_p": _one_of(1),
    "top_a": _one_of(0),
    "epsilon_cutoff": _one_of(0),
    "eta_cutoff": _one_of(0),
    "smoothing_factor": _one_of(0),
    "mirostat_mode": _one_of(0),
    "no_repeat_ngram_size": _one_of(0),
    "n_probs": _one_of(0),
    "id_slot": _one_of(-1),
    "num_beams": _one_of(1),
    "smoothing_curve": _anything,  # of the feature that smoothing_factor switches off
}

ACTIVE_WHEN_EMPTY = frozenset(
    {"web_search_options"}
)  # even an empty object switches the feature on

CHAT: Mapping[str, Check] = {
    **SAMPLING,
    "prediction": _anything,  # a speed hint that does not change the answer
    "modalities": _one_of(["text"]),
    "chat_template_kwargs": _only("enable_thinking", "thinking"),
    "truncation": _one_of("auto", "disabled"),
}

COMPLETION: Mapping[str, Check] = dict(SAMPLING)

TOKENIZE: Mapping[str, Check] = {"add_generation_prompt": _one_of(True)}

STRUCTURED_OUTPUTS: Mapping[str, Check] = dict.fromkeys(
    # Our JSON has no optional white space, and there is no other backend.
    ("disable_any_whitespace", "disable_fallback", "_backend"),
    _anything,
)

_KEPT: Mapping[str, Check] = dict.fromkeys(  # what clients store in a message or in a part of it
    ("cache_control", "index", "status", "metadata", "parsed"), _anything
)

MESSAGE: Mapping[str, Check] = {
    **_KEPT,
    "id": _anything,
    "type": _one_of("message"),
    **dict.fromkeys(  # reasoning and annotations of other models
        (
            "reasoning",
            "reasoning_content",
            "reasoning_details",
            "thinking",
            "thinking_blocks",
            "provider_specific_fields",
            "prefix",
            "partial",
            "phase",
            "finish_reason",
            "created_at",
            "createdAt",
            "timestamp",
            "model",
        ),
        _anything,
    ),
}

PART: Mapping[str, Check] = {
    **_KEPT,
    **dict.fromkeys(
        ("id", "thinking", "signature", "annotations", "logprobs", "prompt_cache_breakpoint"),
        _anything,
    ),
}

TOOL_CALL: Mapping[str, Check] = {**_KEPT, "provider_specific_fields": _anything}

# The openai client's `parse` adds it to the call.
FUNCTION_CALL: Mapping[str, Check] = {"parsed_arguments": _anything}

TOOL: Mapping[str, Check] = {"cache_control": _anything, "custom": _anything}

# `/v1/responses`: fields for other tools than functions and for storage are rejected.
RESPONSES: Mapping[str, Check] = {
    **_REASONING,
    **dict.fromkeys(
        (
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "service_tier",
            "max_tool_calls",  # limits built-in tools, which the server would run itself
        ),
        _anything,
    ),
    "top_logprobs": _one_of(0),
}

RESPONSES_TEXT: Mapping[str, Check] = {"verbosity": _anything}

RESPONSES_STREAM: Mapping[str, Check] = {"include_obfuscation": _anything}

ITEM: Mapping[str, Check] = {**_KEPT, **FUNCTION_CALL, "id": _anything, "caller": _anything}

FUNCTION_TOOL: Mapping[str, Check] = {"cache_control": _anything, "output_schema": _anything}

ALTERNATIVES: Mapping[str, str] = {  # this server's name for another server's field
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_output_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "min_new_tokens": "min_tokens",
    "min_length": "min_tokens",
    "repeat_penalty": "repetition_penalty",
    "typical": "typical_p",
    "top_typical": "typical_p",
    "typ_p": "typical_p",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "stop_token_ids": "stop",
    "best_of": "n",
    "num_return_sequences": "n",
    "num_beams": "n",
    "random_seed": "seed",
    "logprob": "logprobs",
    "prompt_logprobs": "echo with logprobs in /v1/completions",
    "n_probs": "logprobs",
    "grammar": "regex, choices or response_format",
    "guided_grammar": "regex, choices or response_format",
    "structural_tag": "regex, choices or response_format",
    "properties": "response_format.json_schema.schema for a schema",
    "value": "response_format.json_schema.schema for a schema, or regex",
    "pattern": "regex",
    "format": "response_format",
    "input": "messages",
    "parts": "content",
    "instructions": "a message of role system",
    "system": "a message of role system",
    "options": "its contents at the top of the body",
    "previous_response_id": "input with all earlier items",
    "conversation": "input with all earlier items",
    "extra_body": "its contents at the top of the body",
}
