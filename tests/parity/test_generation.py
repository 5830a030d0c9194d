"""Greedy answers under generation_config.json, or an old config.json, against transformers live."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from issun.export import ExportOptions, export
from issun.runtime import Completion, Model
from tests.added import FULL, write_files
from tests.checkpoints import Shape, write_checkpoint

pytestmark = pytest.mark.parity

LONGEST = 24
PROMPTS = ([2, 17, 93, 120, 41], [2, 11, 5, 405, 33, 120, 41, 8, 93])
UNK, EOS = 1, 3

GreedyEngine = list[int]  # what is drawn where nothing is asked for
Fields = dict[str, Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, spiece: Path) -> Path:
    """A checkpoint every row of which is a token."""
    shape = Shape(n_embd=96, n_head=4, n_positions=128, vocab_size=440)
    folder = write_checkpoint(tmp_path_factory.mktemp("full") / "base", shape, spiece, seed=3)
    return write_files(folder, FULL)


@pytest.fixture
def variant(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """`variant(config=…, generation=…)`: the checkpoint with these fields."""

    def make(config: Fields | None = None, generation: Fields | None = None) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for path in base.iterdir():
            (folder / path.name).symlink_to(path)
        if config is not None:
            old = json.loads((base / "config.json").read_text())
            (folder / "config.json").unlink()
            write_files(folder, {"config.json": old | config})
        if generation is not None:
            write_files(folder, {"generation_config.json": generation})
        return folder

    return make


def expected(ref: ModuleType, folder: Path, prompt: list[int]) -> list[int]:
    """What transformers draws greedily, `<unk>` banned."""
    import torch
    from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

    model = ref.load_model(folder)
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=LONGEST,
        pad_token_id=4,
        # A copy of the class: transformers takes one of its own for one of the config's.
        logits_processor=LogitsProcessorList(
            [type("Unk", (SuppressTokensLogitsProcessor,), {})([UNK])]
        ),
    )
    ids: list[int] = output[0, len(prompt) :].tolist()
    return ids


def answers(folder: Path) -> list[Completion]:
    """What issun draws greedily in the bundle's other defaults, one by one and in a batch."""
    target = folder.parent / "bundle"
    export(folder, target, ExportOptions(precision="float32"))
    with Model.load(target) as model:
        least = min(model.default_params.min_new_tokens, LONGEST)
        params = replace(
            model.default_params, temperature=0, max_new_tokens=LONGEST, min_new_tokens=least
        )
        alone = [model.generate(prompt, params) for prompt in PROMPTS]
        together = model.generate_many(PROMPTS, params)
        assert [a.ids for a in alone] == [a.ids for a in together]
        assert [a.text for a in alone] == [model.tokenizer.decode(a.ids) for a in alone]
    return alone


def assert_same(ref: ModuleType, folder: Path, ends: set[int], greedy: list[GreedyEngine]) -> None:
    changed = False
    for prompt, answer, plain in zip(PROMPTS, answers(folder), greedy, strict=True):
        ids = expected(ref, folder, prompt)
        changed |= ids != plain
        ended = ids[-1] in ends
        assert answer.ids == (ids[:-1] if ended else ids)
        assert answer.finish_reason == ("stop" if ended else "length")
    assert changed  # or nothing was compared


@pytest.fixture(scope="module")
def greedy(ref: ModuleType, base: Path) -> list[GreedyEngine]:
    return [expected(ref, base, prompt) for prompt in PROMPTS]


def test_answers_have_tokens_beside_the_file(greedy: list[GreedyEngine]) -> None:
    assert any(i >= 400 for ids in greedy for i in ids)
    assert all(len(ids) == LONGEST for ids in greedy)


# What a field is, given what is drawn without it.
CASES: dict[str, Callable[[GreedyEngine], Fields]] = {
    "several ends": lambda ids: {"eos_token_id": [EOS, ids[9], ids[5]]},
    "another end": lambda ids: {"eos_token_id": ids[7]},
    "min_new_tokens": lambda ids: {"eos_token_id": [EOS, ids[5]], "min_new_tokens": 9},
    "min_length": lambda ids: {"eos_token_id": [ids[5], ids[6]], "min_length": 16},
    "both": lambda ids: {"eos_token_id": ids[5], "min_length": 18, "min_new_tokens": 7},
    "bad_words_ids": lambda ids: {"bad_words_ids": [[ids[2]], [ids[6], ids[7]], ids[9:12]]},
    "a bad end": lambda ids: {"bad_words_ids": [[ids[5]], [ids[3]]], "eos_token_id": ids[5]},
    "suppress_tokens": lambda ids: {"suppress_tokens": [ids[0], ids[4]]},
    "begin_suppress_tokens": lambda ids: {"begin_suppress_tokens": [ids[0], ids[1]]},
    "repetition_penalty": lambda ids: {"repetition_penalty": 1.3},
    "no_repeat_ngram_size": lambda ids: {"no_repeat_ngram_size": 2},
    "all of them": lambda ids: {
        "eos_token_id": [EOS, ids[8]],
        "min_new_tokens": 12,
        "bad_words_ids": [[ids[2]], ids[4:6]],
        "suppress_tokens": [ids[0]],
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
    },
}


@pytest.mark.parametrize("place", ["generation_config.json", "config.json", "both"])
@pytest.mark.parametrize("name", CASES)
def test_greedy_answers_are_those_of_transformers(
    ref: ModuleType,
    variant: Callable[..., Path],
    greedy: list[GreedyEngine],
    name: str,
    place: str,
) -> None:
    fields = CASES[name](greedy[0])
    if place == "config.json":
        folder = variant(config=fields)
    elif place == "both":  # the older file counts where the newer was made of it
        old = {"_from_model_config": True, "eos_token_id": EOS}
        folder = variant(config={"no_repeat_ngram_size": 4, **fields}, generation=old)
    else:
        folder = variant(generation=fields)
    ends = fields.get("eos_token_id", [])
    ends = {EOS, *(ends if isinstance(ends, list) else [ends])}
    assert_same(ref, folder, ends, greedy)
