"""Fields of generation_config.json and old config.json: supported, reported, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from issun.export.config import read_config
from issun.export.errors import CheckpointError
from issun.export.generation import Generation, read_generation
from issun.runtime.decoding.sampling import SamplingParams
from tests.checkpoints import SHAPES, config_of

Fields = dict[str, Any]
DEFAULTS = SamplingParams()


def write(folder: Path, *, config: Fields | None = None, generation: Fields | None = None) -> None:
    whole = config_of(SHAPES["head-8"]) | (config or {})
    (folder / "config.json").write_text(json.dumps(whole))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))


def read(folder: Path, **fields: Fields | None) -> tuple[Generation, list[str]]:
    """The generation defaults, and the notices."""
    write(folder, **fields)
    notices: list[str] = []
    found = read_generation(
        folder,
        read_config(folder)[1],
        unk=1,
        eos=3,
        notify=lambda template, **values: notices.append(template.format(**values)),
    )
    return found, notices


def changes(found: Generation) -> Fields:
    """The sampling defaults that differ from issun's own."""
    return {k: v for k, v in found.sampling.items() if v != getattr(DEFAULTS, k)}


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"eos_token_id": [3, 5]}, (5,)),
        ({"eos_token_id": 5}, (5,)),
        ({"eos_token_id": 3}, ()),
        ({"eos_token_id": []}, ()),
        ({"eos_token_id": None}, ()),
        ({}, ()),
        ({"eos_token_id": [7, 5, 5, 0]}, (0, 5, 7)),
    ],
)
@pytest.mark.parametrize("place", ["config", "generation"])
def test_every_end_id_is_used(
    tmp_path: Path, place: str, fields: Fields, ends: tuple[int, ...]
) -> None:
    found, notices = read(tmp_path, **{place: fields})
    assert (found.ends, notices) == (ends, [])


def test_end_ids_of_generation_config_take_precedence(tmp_path: Path) -> None:
    old = {"eos_token_id": [5, 6]}
    assert read(tmp_path, config=old, generation={"eos_token_id": 7})[0].ends == (7,)
    assert read(tmp_path, config=old, generation={"top_k": 5})[0].ends == (5, 6)


def test_end_id_outside_the_vocabulary_is_reported(tmp_path: Path) -> None:
    found, notices = read(tmp_path, generation={"eos_token_id": [50256, 5]})
    assert found.ends == (5,)
    assert notices == [
        f"{tmp_path}/generation_config.json: eos_token_id 50256 is ignored, since vocab_size is "
        "512."
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"bad_words_ids": [[8], [9, 10], [3]]},
            {"banned_ids": [1, 8], "banned_sequences": [[9, 10]]},
        ),
        ({"suppress_tokens": [9, 8, 3]}, {"banned_ids": [1, 3, 8, 9]}),
        ({"bad_words_ids": [[1]]}, {}),
        ({"begin_suppress_tokens": [220, 3]}, {"banned_first_ids": [3, 220]}),
        ({"min_length": 12}, {"min_length": 12}),
        ({"min_new_tokens": 5, "min_length": 12}, {"min_new_tokens": 5}),
        ({"min_new_tokens": 120}, {"min_new_tokens": 120, "max_new_tokens": 120}),
        ({"max_new_tokens": 30}, {"max_new_tokens": 30}),
        ({"max_length": 1024}, {"max_new_tokens": 192}),  # up to the end of the context
        ({"max_length": 50, "max_new_tokens": 30}, {"max_new_tokens": 30}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 3}),
        ({"stop_strings": "終"}, {"stop": ["終"]}),
        ({"stop_strings": ["終", "了"]}, {"stop": ["終", "了"]}),
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "temperature": 0.9, "top_k": 0}, {"temperature": 0.9}),
        (
            {"temperature": 0.9, "top_p": 0.5, "min_p": 0.1},
            {"temperature": 0.9, "top_p": 0.5, "min_p": 0.1},
        ),
    ],
)
def test_supported_fields(tmp_path: Path, fields: Fields, expected: Fields) -> None:
    found, notices = read(tmp_path, generation=fields)
    assert changes(found) == expected
    assert notices == []


# Everything that transformers 4.57 writes by default, and what old versions wrote.
NOTHING: Fields = {
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "num_beams": 1,
    "early_stopping": False,
    "use_cache": True,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "num_return_sequences": 1,
    "epsilon_cutoff": 0.0,
    "renormalize_logits": True,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "suppress_tokens": [],
    "diversity_penalty": 0.0,
    "bos_token_id": 2,
    "pad_token_id": 4,
    "output_scores": True,
    "transformers_version": "4.57.6",
    "_from_model_config": True,
}


def test_default_values_change_nothing(tmp_path: Path) -> None:
    found, notices = read(tmp_path, generation=NOTHING)
    assert (changes(found), notices) == ({}, [])
    more = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
    (tmp_path / "generation_config.json").unlink()
    found, notices = read(tmp_path, config=NOTHING | more | {"summary_type": "cls_index"})
    assert (changes(found), notices) == ({}, [])


def test_a_derived_generation_config_is_ignored_if_config_json_changes_defaults(
    tmp_path: Path,
) -> None:
    made = {"_from_model_config": True, "eos_token_id": 3, "top_k": 7}
    found, _ = read(tmp_path, config={"repetition_penalty": 1.5}, generation=made)
    assert changes(found) == {"repetition_penalty": 1.5}
    del made["_from_model_config"]
    assert changes(read(tmp_path, config={"top_k": 9}, generation=made)[0]) == {"top_k": 7}


@pytest.mark.parametrize(
    "fields",
    [
        {"num_beams": 4},
        {"forced_eos_token_id": 0},
        {"forced_bos_token_id": 2},
        {"encoder_repetition_penalty": 1.2},
        {"sequence_bias": [[[8], -1.0]]},
        {"exponential_decay_length_penalty": [10, 1.1]},
        {"epsilon_cutoff": 0.0003},
        {"eta_cutoff": 0.0003},
        {"max_length": 50},
        {"max_time": 3.0},
        {"guidance_scale": 1.5},
        {"penalty_alpha": 0.6},
        {"num_return_sequences": 3},
        {"watermarking_config": {"bias": 2.0}},
        {"top_h": 0.4},  # a field of a future version
    ],
)
def test_unsupported_fields_are_reported(tmp_path: Path, fields: Fields) -> None:
    (name, value), *_ = fields.items()
    found, notices = read(tmp_path, generation=fields)
    assert changes(found) == {}
    assert notices == [
        f"{tmp_path}/generation_config.json sets {name} {value!r}, which issun does not support: "
        "answers may differ from those of transformers."
    ]
    (tmp_path / "generation_config.json").unlink()
    _, notices = read(tmp_path, config=fields)
    assert len(notices) == (name != "top_h")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', it must be an id or a list of ids"),
        ({"eos_token_id": [3, -1]}, r"eos_token_id is \[3, -1\]"),
        ({"eos_token_id": True}, "eos_token_id is True"),
        ({"bad_words_ids": [8]}, "bad_words_ids is 8, it must be a list of ids below 512"),
        ({"bad_words_ids": [[512]]}, r"bad_words_ids is \[512\]"),
        ({"bad_words_ids": 8}, "bad_words_ids is 8"),
        ({"suppress_tokens": [-1]}, r"suppress_tokens is \[-1\]"),
        ({"begin_suppress_tokens": ["a"]}, "begin_suppress_tokens is"),
        ({"min_new_tokens": 40, "max_new_tokens": 30}, "min_new_tokens is 40, it must be at most"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_length": "long"}, "max_length is 'long'"),
        ({"min_length": 1.5}, "min_length is 1.5"),
        ({"do_sample": "yes"}, "do_sample is 'yes', it must be true or false"),
        ({"stop_strings": [3]}, "stop is"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
    ],
)
def test_invalid_values_are_refused(tmp_path: Path, fields: Fields, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"generation_config.json: {message}"):
        read(tmp_path, generation=fields)
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=f"config.json: {message}"):
        read(tmp_path, config=fields)


# Published generation_config.json files, and what they mean.
_CHATML_ENDS = {"bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643]}
PUBLISHED: dict[str, tuple[Fields, int, tuple[int, ...], Fields]] = {
    "Qwen2.5-1.5B-Instruct, TinySwallow-1.5B-Instruct": (
        _CHATML_ENDS
        | {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7}
        | {"top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0"},
        151645,
        (151643,),
        {"repetition_penalty": 1.1, "top_p": 0.8, "top_k": 20},
    ),
    "Qwen2.5-1.5B": (
        {"bos_token_id": 151643, "do_sample": False, "eos_token_id": 151643}
        | {"max_new_tokens": 2048, "transformers_version": "4.37.0"},
        151643,
        (),
        {"temperature": 0.0, "max_new_tokens": 2048},
    ),
    "Qwen3-0.6B": (
        _CHATML_ENDS
        | {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
        | {"transformers_version": "4.51.0"},
        151645,
        (151643,),
        {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
    "Llama-3.2-1B-Instruct": (
        {"bos_token_id": 128000, "do_sample": True, "temperature": 0.6, "top_p": 0.9}
        | {"eos_token_id": [128001, 128008, 128009], "transformers_version": "4.45.0"},
        128009,
        (128001, 128008),
        {"temperature": 0.6, "top_p": 0.9, "top_k": 50},
    ),
    "sarashina2.2-0.5b-instruct, llm-jp-3-1.8b-instruct": (
        {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 4},
        2,
        (),
        {},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_defaults_are_those_of_the_bundle(tmp_path: Path, name: str) -> None:
    fields, eos, ends, changed = PUBLISHED[name]
    write(tmp_path, config={"vocab_size": 151936}, generation=fields)
    notices: list[str] = []
    found = read_generation(
        tmp_path,
        read_config(tmp_path)[1],
        unk=None,
        eos=eos,
        notify=lambda template, **values: notices.append(template.format(**values)),
    )
    assert found.ends == ends
    assert changes(found) == changed
    assert notices == []
