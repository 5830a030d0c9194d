"""Reads generation_config.json, or the same fields of an old config.json, as sampling defaults.

Source: `GenerationConfig` and `GenerationMixin._prepare_generation_config` in transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.export.network import Network
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import Notify, ParameterError

# Fields with the same name and meaning in SamplingParams.
_DIRECT = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "min_length",
    "min_new_tokens",
    "max_new_tokens",
)
_TRANSLATED = (
    "do_sample",
    "max_length",
    "stop_strings",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "eos_token_id",
)
# Unsupported fields, which are reported.
_UNSUPPORTED = (
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "max_time",
    "epsilon_cutoff",
    "eta_cutoff",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "sequence_bias",
    "token_healing",
    "guidance_scale",
    "watermarking_config",
    "penalty_alpha",
    "dola_layers",
    "constraints",
    "force_words_ids",
)
# Fields that do not change the answer, or only together with an unsupported one.
_IGNORED = (
    *("early_stopping", "length_penalty", "diversity_penalty", "low_memory", "use_cache"),
    *("renormalize_logits", "remove_invalid_values", "bos_token_id", "pad_token_id"),
    *("decoder_start_token_id", "cache_implementation", "cache_config", "prefill_chunk_size"),
    *("return_legacy_cache", "return_dict_in_generate", "output_attentions", "output_logits"),
    *("output_hidden_states", "output_scores", "compile_config", "disable_compile"),
    *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind"),
    *("target_lookbehind", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    "transformers_version",
)
# The defaults of transformers that are not None. Old versions wrote all of them to config.json.
_DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "max_length": 20,
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "token_healing": False,
    "guidance_scale": 1.0,
    "penalty_alpha": 0.0,
}
# If config.json changes one of these from its default, transformers ignores a
# generation_config.json that was derived from an old config.json.
_OVERRIDING = (
    *("max_length", "min_length", "do_sample", "num_beams", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id"),
    *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
    "num_beam_groups",
)

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Generation:
    """The ids that end an answer in addition to the tokenizer's, and the default sampling."""

    ends: tuple[int, ...]
    sampling: Fields


def read_generation(
    folder: Path, network: Network, *, unk: int | None, eos: int | None, notify: Notify
) -> Generation:
    """Read the generation defaults of the checkpoint in `folder`.

    `unk` and `eos` are the tokenizer's ids; `notify` is called about unsupported fields. Raises
    CheckpointError for invalid values.
    """
    path, config_fields = _read(folder)
    rows = network.vocab_size
    ends = _ends(config_fields.get("eos_token_id"), path)
    for i in sorted(i for i in ends if i >= rows):
        notify(
            "{path}: eos_token_id {id} is ignored, since vocab_size is {rows}.",
            path=path,
            id=i,
            rows=rows,
        )
    ends = {i for i in ends if i < rows}
    unsupported = [name for name in config_fields if name not in (*_DIRECT, *_TRANSLATED)]
    max_length = min(_max_length(config_fields, path), network.n_positions)
    if 0 < max_length < network.n_positions and "max_new_tokens" not in config_fields:
        unsupported.append("max_length")  # includes the prompt: a long one would leave no answer
    if unsupported:
        notify(
            "{path} sets {fields}, which issun does not support: answers may differ from those of "
            "transformers.",
            path=path,
            fields=", ".join(f"{name} {config_fields[name]!r:.40}" for name in unsupported),
        )
    banned = _bans(config_fields, path, rows, ends=ends | {eos}, unk=unk)
    whole_context = max_length == network.n_positions
    sampling = _sampling(config_fields, path, max_length if whole_context else 0)
    return Generation(tuple(sorted(ends - {eos})), sampling | banned)


def _read(folder: Path) -> tuple[Path, Fields]:
    """The file that transformers would use, and its fields that differ from the defaults."""
    path, old_path = folder / "generation_config.json", folder / "config.json"
    raw = read_json(old_path)
    known = {*_DIRECT, *_TRANSLATED, *_UNSUPPORTED}
    old = {k: v for k, v in _fields(raw).items() if k in known and v != _DEFAULTS.get(k)}
    if not path.is_file():
        return old_path, old
    new = read_json(path)
    if new.get("_from_model_config") and not old.keys().isdisjoint(_OVERRIDING):
        return old_path, old
    explicit = {
        k: v for k, v in _fields(new).items() if k not in _UNSUPPORTED or v != _DEFAULTS.get(k)
    }
    return path, {k: old[k] for k in ("eos_token_id",) if k in old} | explicit


def _fields(raw: Fields) -> Fields:
    """The fields that are set and may change the answer."""
    return {
        name: value
        for name, value in raw.items()
        if value not in (None, [], {}) and name not in _IGNORED and not name.startswith("_")
    }


def _sampling(config_fields: Fields, path: Path, max_length: int) -> Fields:
    """issun's default sampling, updated with the checkpoint's; `max_length` 0 means unset."""
    defaults = {
        f.name: f.default for f in fields(SamplingParams) if isinstance(f.default, int | float)
    }
    chosen = {name: config_fields[name] for name in _DIRECT if name in config_fields}
    do_sample = config_fields.get("do_sample")
    if do_sample is True:  # transformers then uses its own defaults for unset fields
        chosen = {name: _DEFAULTS[name] for name in ("temperature", "top_k")} | chosen
    elif do_sample is False:
        chosen["temperature"] = 0.0
    elif do_sample is not None:
        raise CheckpointError(
            "{path}: {key} is {value!r}, it must be true or false.",
            path=path,
            key="do_sample",
            value=do_sample,
        )
    if "min_new_tokens" in chosen:
        chosen.pop("min_length", None)  # as in transformers
    if max_length:
        chosen.setdefault("max_new_tokens", max_length)
    min_new_tokens = chosen.get("min_new_tokens")
    if isinstance(min_new_tokens, int) and min_new_tokens > defaults["max_new_tokens"]:
        chosen.setdefault("max_new_tokens", min_new_tokens)
    if stop := config_fields.get("stop_strings"):
        chosen["stop"] = [stop] if isinstance(stop, str) else stop
    try:
        SamplingParams(**chosen)
    except ParameterError as error:
        raise CheckpointError("{path}: {reason}", path=path, reason=error) from error
    return defaults | chosen


def _bans(
    config_fields: Fields, path: Path, rows: int, *, ends: Collection[int | None], unk: int | None
) -> Fields:
    """Banned ids, ids banned as the first token, and banned sequences."""
    words = config_fields.get("bad_words_ids", [])
    if not isinstance(words, list):
        raise _invalid_ids("bad_words_ids", words, path, rows)
    for word in words:
        _check_ids("bad_words_ids", word, path, rows)
    found: Fields = {}
    singles = {word[0] for word in words if len(word) == 1} - set(ends)
    singles |= _check_ids("suppress_tokens", config_fields.get("suppress_tokens", []), path, rows)
    unknown = set() if unk is None else {unk}
    if singles - unknown:
        found["banned_ids"] = sorted(singles | unknown)
    if first := _check_ids(
        "begin_suppress_tokens", config_fields.get("begin_suppress_tokens", []), path, rows
    ):
        found["banned_first_ids"] = sorted(first)
    if sequences := [word for word in words if len(word) > 1]:
        found["banned_sequences"] = sequences
    return found


def _check_ids(name: str, ids: Any, path: Path, rows: int) -> set[int]:
    if isinstance(ids, list) and all(_is_id(i) and i < rows for i in ids):
        return set(ids)
    raise _invalid_ids(name, ids, path, rows)


def _ends(value: Any, path: Path) -> set[int]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if all(map(_is_id, ids)):
        return set(ids)
    raise CheckpointError(
        "{path}: {key} is {value!r}, it must be an id or a list of ids.",
        path=path,
        key="eos_token_id",
        value=value,
    )


def _max_length(config_fields: Fields, path: Path) -> int:
    """`max_length`; 0 if it is the default of transformers."""
    value = config_fields.get("max_length", _DEFAULTS["max_length"])
    if not _is_id(value) or value < 1:
        raise CheckpointError(
            "{path}: {key} is {value!r}, it must be an integer of at least {low}.",
            path=path,
            low=1,
            key="max_length",
            value=value,
        )
    return 0 if value == _DEFAULTS["max_length"] else int(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _invalid_ids(name: str, value: Any, path: Path, rows: int) -> CheckpointError:
    return CheckpointError(
        "{path}: {key} is {value!r:.80}, it must be a list of ids below {rows}.",
        path=path,
        key=name,
        value=value,
        rows=rows,
    )
