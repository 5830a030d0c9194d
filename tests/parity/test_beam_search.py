"""Beam search, compared with transformers in float32: answers, their order and their scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from issun.export import ExportOptions, export
from issun.runtime import BeamParams, Model

pytestmark = pytest.mark.parity

TIE = 1e-4
QUESTIONS = (
    "日本で一番高い山は?",
    "猫について書いてください。",
    "フランスの首都は?",
    "こんにちは!",
    "次の文を英語に訳してください。今日はいい天気です。",
    "1年は何日ですか。",
    "好きな食べ物は何ですか?",
    "短い詩を書いて",
    "春の季語を三つ挙げてください。",
    "東京から大阪までどうやって行く?",
    "水は何度で沸騰しますか?",
    "おすすめの本は?",
    "犬と猫の違いを説明して",
    "3+4は?",
    "富士山",
    "昔々あるところに",
    "早起きのコツを教えてください。",
    "コンピュータとは何ですか。",
    "カレーの作り方",
    "ありがとう",
)
# Each is tried with a quarter of the questions.
SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 2, "length_penalty": 0.0, "early_stopping": True},
    {"num_beams": 2, "length_penalty": 1.0, "early_stopping": "never"},
    {"num_beams": 2, "length_penalty": 2.0, "early_stopping": False},
    {"num_beams": 4, "length_penalty": 1.0, "early_stopping": False},
    {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "num_return_sequences": 4},
    {"num_beams": 4, "length_penalty": -1.0, "early_stopping": False, "num_return_sequences": 3},
    {"num_beams": 5, "length_penalty": 2.0, "early_stopping": "never", "num_return_sequences": 2},
    {"num_beams": 5, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 5, "length_penalty": 1.0, "early_stopping": True, "num_return_sequences": 5},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "num_return_sequences": 4},
    {"num_beams": 5, "no_repeat_ngram_size": 3, "num_return_sequences": 3, "length_penalty": 0.5},
    {"num_beams": 4, "repetition_penalty": 1.3, "num_return_sequences": 2},
    {"num_beams": 3, "min_new_tokens": 9, "num_return_sequences": 3, "early_stopping": True},
]
LLAMA_ENDS = [256, 0x82, 0x8B]
FILLER = -1  # of transformers' rows after the end of an answer

Answer = tuple[list[int], str]  # without the end token


class Both:
    """A checkpoint in transformers and its float32 bundle."""

    def __init__(self, ref: ModuleType, folder: Path, target: Path) -> None:
        export(folder, target, ExportOptions(precision="float32"))
        self.issun, self.torch = Model.load(target, threads=1), ref.load_model(folder)

    def expected(self, prompt: list[int], **fields: Any) -> tuple[list[Answer], list[float]]:
        """The answers of transformers and their scores, with issun's bans."""
        import torch
        from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

        vocabulary = self.issun._vocabulary
        unknown = [] if vocabulary.unk is None else [vocabulary.unk]
        # A subclass: transformers replaces a processor of the same class as the config's.
        suppress = type("Suppress", (SuppressTokensLogitsProcessor,), {})
        output = self.torch.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            eos_token_id=[*vocabulary.ends],
            pad_token_id=FILLER,
            return_dict_in_generate=True,
            output_scores=True,
            logits_processor=LogitsProcessorList([suppress([*unknown, *vocabulary.without_token])]),
            **fields,
        )
        rows = output.sequences[:, len(prompt) :].tolist()
        answers = [[token for token in row if token != FILLER] for row in rows]
        return [
            (ids[:-1], "stop") if ids[-1] in vocabulary.ends else (ids, "length") for ids in answers
        ], output.sequences_scores.tolist()


@pytest.fixture(
    scope="module", params=["ja-small", pytest.param("tiny-llama", marks=pytest.mark.slow)]
)
def both(
    request: pytest.FixtureRequest,
    ref: ModuleType,
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Both]:
    source = shared / "checkpoints" / request.param
    if not source.is_dir():
        pytest.skip(f"there is no checkpoint at {source}")
    folder = tmp_path_factory.mktemp("beams")
    if request.param == "tiny-llama":  # its bytes rarely end an answer: let two more of them do so
        source = shutil.copytree(source, folder / "checkpoint")
        path = source / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": LLAMA_ENDS}))
    found = Both(ref, source, folder / "bundle")
    yield found
    found.issun.close()


@pytest.mark.sampled
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_answers_and_scores_equal_those_of_transformers(both: Both, number: int) -> None:
    fields = {"max_new_tokens": 16, **SETTINGS[number]}
    for question in QUESTIONS[number % 4 :: 4]:
        prompt = both.issun.prompt(question)
        answers, scores = both.expected(prompt, **fields)
        found = both.issun.beam_search(prompt, BeamParams(**fields))
        assert [c.score for c in found] == pytest.approx(scores, abs=TIE, rel=1e-5)
        for completion, answer, score in zip(found, answers, scores, strict=True):
            if sum(abs(score - other) < TIE for other in scores) == 1:
                assert (completion.ids, completion.finish_reason) == answer
