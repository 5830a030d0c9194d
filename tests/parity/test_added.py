"""Added tokens in all file formats, compared with T5Tokenizer loaded from the same folder."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType

import pytest

from issun.export import ExportOptions, export
from issun.export.template import ALPACA
from issun.export.tokenizer import read_tokenizer
from issun.runtime import Model, SamplingParams
from issun.runtime.manifest import Template
from issun.runtime.text.prompt import PromptBuilder
from tests.added import SPELLINGS, added_strings, write_files, write_spelling
from tests.rendering import render

pytestmark = pytest.mark.parity

ROWS = 512


WITH_ROLES = Template(
    name="roles",
    with_input="<s><|user|> {instruction}<tool>{input} <|im_end|>\\n<b>指示: [SEP]単語 </b> ",
    without_input="<s> <|user|>{instruction} <|im_end|> 応答:<b> ",
    newline=r"\n",
    chat=ALPACA.chat,
)
# White space next to tokens that strip it, and words that start or end with a token.
SLOTS = [
    "猫",
    " 猫 ",
    "\u3000猫は\t",
    "<tool>猫 <tool> ",
    "単語 猫単語",
    " </b> <b>",
    "",
    "  ",
    "😀",
]


def without_surrogates(text: str) -> str:
    return text.replace("\ud800", "\ufffd")


@pytest.mark.sampled
@pytest.mark.parametrize("lower", [False, True], ids=["", "lower"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_ids_equal_those_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str, lower: bool
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    config = SPELLINGS[name]["tokenizer_config.json"] | {"do_lower_case": lower}
    write_files(folder, {"tokenizer_config.json": config})
    reference = ref.load_tokenizer(folder)
    reference.do_lower_case = lower  # T5Tokenizer ignores the file
    source = read_tokenizer(folder, ROWS)
    tokenizer = source.open()
    wrong = [
        (text, tokenizer.encode(text, special=True), expected)
        for text in added_strings(1500)
        if tokenizer.encode(text, special=True)
        != (expected := ref.encode(reference, without_surrogates(text)))
    ]
    assert not wrong[:3]
    for role in ("bos", "eos", "unk", "sep", "pad"):
        assert getattr(source.tokens, role) == getattr(reference, f"{role}_token_id")


@pytest.mark.parametrize("name", ["decoder with flags", "added_tokens.json"])
def test_prompt_ids_equal_those_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    reference, tokenizer = ref.load_tokenizer(folder), read_tokenizer(folder, ROWS).open()
    prompts = PromptBuilder(WITH_ROLES, tokenizer, 1024)
    for instruction, text in itertools.product(SLOTS, [*SLOTS, None]):
        if not instruction.strip():
            continue
        whole = render(WITH_ROLES, instruction, text or None)
        assert prompts.instruction(instruction, text) == ref.encode(reference, whole), whole


@pytest.mark.parametrize("name", ["decoder with flags", "over a piece", "added_tokens.json"])
def test_decoded_texts_equal_those_of_transformers(
    ref: ModuleType, spiece: Path, tmp_path: Path, name: str
) -> None:
    folder = write_spelling(tmp_path / "tokenizer", spiece, name)
    reference, tokenizer = ref.load_tokenizer(folder), read_tokenizer(folder, ROWS).open()
    # Only the reference's slow tokenizers treat a special token without a role as text.
    left_out = {1, *(i for i in range(7) if i not in reference.all_special_ids)}
    wrong = []
    for text in added_strings(1000, seed=1):
        ids = [i for i in tokenizer.encode(text, special=True) if i not in left_out]
        decoded = reference.decode(
            ids,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
            spaces_between_special_tokens=False,
        )
        # The reference strips white space before an added token, which a stream has returned.
        if "".join(tokenizer.decode(ids).split()) != "".join(decoded.split()):
            wrong.append((ids, tokenizer.decode(ids), decoded))
    assert not wrong[:3]


@pytest.mark.parametrize("rows", ["", "spare"], ids=["as many rows as tokens", "spare rows"])
def test_trained_model_with_an_added_end_token(
    ref: ModuleType, shared: Path, tmp_path: Path, rows: str
) -> None:
    import torch

    folder = shared / "checkpoints" / "ja-small"
    if not folder.is_dir():
        pytest.skip(f"there is no checkpoint at {folder}")
    model, tokenizer = ref.load_model(folder), ref.load_tokenizer(folder)
    tokenizer.add_special_tokens(
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|user|>"]}
    )
    tokenizer.add_tokens(["<tool>"])
    end: int = tokenizer.eos_token_id
    model.resize_token_embeddings(len(tokenizer) + 61 * bool(rows))
    with torch.no_grad():  # the model's previous end token
        weight = model.transformer.wte.weight
        weight[end], weight[3] = weight[3].clone(), 0
    model.generation_config.eos_token_id = model.config.eos_token_id = end
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    export(tmp_path / "saved", tmp_path / "bundle", ExportOptions(precision="float32"))
    params = SamplingParams(temperature=0, max_new_tokens=60)
    ended = 0
    with Model.load(tmp_path / "bundle") as bundle:
        for question in ("日本で一番高い山は?", "<tool>とは?", "<|user|>は<|im_end|>", "猫は好き?"):
            prompt = bundle.prompt(question)
            assert end not in prompt
            whole = render(bundle.manifest.prompt, question, None)
            if "<|" not in question:
                assert prompt == ref.encode(tokenizer, whole)
            output = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=60,
                bad_words_ids=[[1], *([row] for row in range(end + 3, model.config.vocab_size))],
                pad_token_id=4,
            )
            ids = output[0, len(prompt) :].tolist()
            answer = bundle.generate(prompt, params)
            assert answer.ids == [i for i in ids if i != end]
            assert answer.finish_reason == ("stop" if end in ids else "length")
            ended += end in ids
    assert ended
