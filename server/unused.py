"""Fields that have no effect here: which of their values ask for nothing, and are taken.

Null, false and what is empty is taken under any name. Every other field that is not read is refused
by its path, with the name of the field that does the same where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def _anything(value: Any) -> bool:
    """True: the field is a note, or is about something that never happens here."""
    return True


def _one_of(*harmless: Any) -> Check:
    """Whether a value is one that leaves the answer as it is."""
    return lambda value: value in harmless


def _only(*names: str) -> Check:
    """Whether a value is an object with no other keys than these."""
    return lambda value: isinstance(value, dict) and value.keys() <= set(names)


_REASONING: Mapping[str, Check] = dict.fromkeys(  # nothing here reasons
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
    **dict.fromkeys(  # notes of clients to their own account, proxy or cache
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
    "usage": _only("include"),  # it is always counted
    "best_of": _one_of(1),
    # Other engines' names, with the value that leaves the answer as it is.
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
    "mirostat": _one_of(0),
    "mirostat_mode": _one_of(0),
    "dynatemp_range": _one_of(0),
    "xtc_probability": _one_of(0),
    "dry_multiplier": _one_of(0),
    "no_repeat_ngram_size": _one_of(0),
    "n_probs": _one_of(0),
    "id_slot": _one_of(-1),
    "num_beams": _one_of(1),
    # Of a feature that the fields above keep off.
    **dict.fromkeys(
        (
            "mirostat_tau",
            "mirostat_eta",
            "dynatemp_exponent",
            "smoothing_curve",
            "xtc_threshold",
            "dry_base",
            "dry_allowed_length",
            "dry_penalty_last_n",
            "dry_sequence_breakers",
        ),
        _anything,
    ),
}

ASKS_BY_BEING_THERE = frozenset({"web_search_options"})  # also where it is an empty object

CHAT: Mapping[str, Check] = {
    **SAMPLING,
    "prediction": _anything,  # it makes other servers faster, and changes no answer
    "modalities": _one_of(["text"]),
    "chat_template_kwargs": _only("enable_thinking", "thinking"),
    "truncation": _one_of("auto", "disabled"),
}

COMPLETION: Mapping[str, Check] = dict(SAMPLING)

TOKENIZE: Mapping[str, Check] = {"add_generation_prompt": _one_of(True)}

STRUCTURED_OUTPUTS: Mapping[str, Check] = dict.fromkeys(
    # JSON here has neither white space that may be anywhere nor another engine to fall back to.
    ("disable_any_whitespace", "disable_fallback", "_backend"),
    _anything,
)

_KEPT: Mapping[str, Check] = dict.fromkeys(  # what clients keep beside a message or a part of it
    ("cache_control", "index", "status", "metadata", "parsed"), _anything
)

MESSAGE: Mapping[str, Check] = {
    **_KEPT,
    "id": _anything,
    "type": _one_of("message"),
    **dict.fromkeys(  # reasoning of other models, and their notes
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

# As openai's `parse` leaves it, beside the text that it is read from.
FUNCTION_CALL: Mapping[str, Check] = {"parsed_arguments": _anything}

TOOL: Mapping[str, Check] = {"cache_control": _anything, "custom": _anything}

# `/v1/responses`: what is about other tools than functions, and about storing, is refused.
RESPONSES: Mapping[str, Check] = {
    **_REASONING,
    **dict.fromkeys(
        (
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "service_tier",
            "max_tool_calls",  # of tools that the server itself would run
        ),
        _anything,
    ),
    "top_logprobs": _one_of(0),
}

RESPONSES_TEXT: Mapping[str, Check] = {"verbosity": _anything}

RESPONSES_STREAM: Mapping[str, Check] = {"include_obfuscation": _anything}

ITEM: Mapping[str, Check] = {**_KEPT, **FUNCTION_CALL, "id": _anything, "caller": _anything}

FUNCTION_TOOL: Mapping[str, Check] = {"cache_control": _anything, "output_schema": _anything}

INSTEAD: Mapping[str, str] = {  # the field of this server that does what another's does
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
