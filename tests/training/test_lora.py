"""Adapters without torch: their shape, the layers they change, and prompt formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export.checkpoint import Checkpoint, open_checkpoint
from issun.export.errors import CheckpointError
from issun.export.template import ALPACA
from issun.runtime.errors import ParameterError
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.turn import Turn
from issun.training.data import read_records
from issun.training.encoding import choose_format, open_encoder
from issun.training.errors import DataError
from issun.training.lora import changed_layers, num_trained
from issun.training.recipe import Lora, Recipe


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """`base(family)`: a tiny random checkpoint."""
    folder = tmp_path_factory.mktemp("bases")

    def make(family: str) -> Checkpoint:
        if not (folder / family).exists():
            make_checkpoint(folder / family, SHAPES[family]["tiny"])
        return open_checkpoint(folder / family)

    return make


def ignore(template: str, **values: object) -> None:
    """A notice that nobody reads."""


def test_defaults_of_an_adapter() -> None:
    assert (Lora().rank, Lora().alpha) == (16, 32)
    assert Lora(rank=4).alpha == 8
    assert Lora(rank=4, alpha=4).alpha == 4
    assert Recipe(lora=Lora()).learning_rate == 2e-4
    assert Recipe(lora=Lora(), learning_rate=1e-3).learning_rate == 1e-3


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"alpha": 0}, {"rank": 2**32}, {"rank": 8.0}, {"target_modules": "c_attn"}],
)
def test_invalid_shape_of_an_adapter(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"{next(iter(wrong))} is"):
        Lora(**wrong)


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("gpt2", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
        (
            "gpt-neox",
            [
                *("attention.query_key_value", "attention.dense"),
                *("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            ],
        ),
        (
            "llama",
            [
                *(f"self_attn.{name}_proj" for name in "qkvo"),
                *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
            ],
        ),
    ],
)
def test_all_linear_layers_of_the_blocks_are_changed(
    base: Callable[[str], Checkpoint], family: str, layers: list[str]
) -> None:
    start = "h" if family == "gpt2" else "layers"
    expected = [f"{start}.{number}.{layer}" for number in (0, 1) for layer in layers]
    assert changed_layers(base(family), Lora()) == expected
    assert all(f"{layer}.weight" in base(family).stored for layer in expected)


def test_targets_are_names_or_their_ends(base: Callable[[str], Checkpoint]) -> None:
    gpt2 = base("gpt2")
    assert changed_layers(gpt2, Lora(target_modules=("mlp.c_proj",))) == [
        "h.0.mlp.c_proj",
        "h.1.mlp.c_proj",
    ]
    assert len(changed_layers(gpt2, Lora(target_modules=("c_proj",)))) == 4
    assert changed_layers(gpt2, Lora(target_modules=("h.1.attn.c_attn",))) == ["h.1.attn.c_attn"]
    for wrong in ("proj", "wte", "lm_head"):
        with pytest.raises(ParameterError, match="must be one of c_attn, c_proj, c_fc"):
            changed_layers(gpt2, Lora(target_modules=("c_fc", wrong)))
    with pytest.raises(ParameterError, match="a list of texts, none of them empty"):
        Lora(target_modules=("c_fc", ""))
    with pytest.raises(ParameterError, match=r"rank is 65, .* from 1 to 64"):
        changed_layers(gpt2, Lora(rank=65))


def test_number_of_trained_values(base: Callable[[str], Checkpoint]) -> None:
    # A is (rank, in) and B (out, rank): 64 to 192, 64 to 64, 64 to 256, and 256 to 64.
    assert num_trained(base("gpt2"), Lora(rank=2)) == 2 * 2 * (256 + 128 + 320 + 320)
    assert num_trained(base("gpt2"), Lora(target_modules=("c_attn",))) == 2 * 16 * (64 + 192)


RECORDS = [
    {"instruction": "日本の首都は?", "output": "東京\nです。"},
    {"instruction": "訳せ。", "input": "雨", "output": "rain<|im_end|>"},
    {"role": "侍です。", "history": [["やあ", "うむ"]], "message": "元気か?", "answer": "うむ。"},
]


def test_records_in_the_model_s_own_format(
    base: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint, path = base("qwen2"), tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    template = choose_format(checkpoint, "qwen2", None, ignore)
    assert template.name == "chat_template"
    with open_encoder(checkpoint, template, path) as encode:
        rows = [encode(record) for record in read_records(path)]
    tokenizer = checkpoint.tokenizer.open()
    prompts = PromptBuilder(template, tokenizer, 1024)
    turns, answers = [Turn("やあ", "うむ")], ["東京\nです。", "rain<|im_end|>", "うむ。"]
    expected = [
        prompts.instruction("日本の首都は?"),
        prompts.instruction("訳せ。", "雨"),
        prompts.chat(["侍です。"], turns, "元気か?", max_new_tokens=1).ids,
    ]
    prompts.close()
    eos = checkpoint.tokenizer.tokens.eos
    for row, prompt, answer in zip(rows, expected, answers, strict=True):
        assert row[: len(prompt)] == prompt
        assert row[-1] == eos
        assert row.count(eos) == prompt.count(eos) + 1  # that an answer spells stays text
        assert row[len(prompt) : -1] == tokenizer.encode(answer)


def test_format_of_the_published_model_is_gpt2_s_default(
    base: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint, path = base("gpt2"), tmp_path / "a.jsonl"
    assert choose_format(checkpoint, "gpt2", None, ignore) == ALPACA
    # Another format that is named counts.
    plain = choose_format(checkpoint, "gpt2", "plain", ignore)
    path.write_text(json.dumps(RECORDS[0]) + "\n", encoding="utf-8")
    tokenizer = checkpoint.tokenizer.open()
    with open_encoder(checkpoint, plain, path) as encode:
        (row,) = [encode(record) for record in read_records(path)]
    assert row == [*tokenizer.encode("日本の首都は?東京\nです。"), checkpoint.tokenizer.tokens.eos]
    finished = tmp_path / "a.txt"
    finished.write_text("<s>a</s>\n")
    with (
        pytest.raises(DataError, match=r"the format alpaca-japanese, and the model's is plain"),
        open_encoder(checkpoint, plain, finished) as encode,
    ):
        encode(read_records(finished)[0])


def test_tokenizer_without_an_end_token(base: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    checkpoint = base("llama")
    template = choose_format(checkpoint, "base", None, ignore)
    tokens = structs.replace(checkpoint.tokenizer.tokens, eos=None)
    checkpoint = replace(checkpoint, tokenizer=replace(checkpoint.tokenizer, tokens=tokens))
    with (
        pytest.raises(CheckpointError, match="names no end token"),
        open_encoder(checkpoint, template, tmp_path),
    ):
        pass
