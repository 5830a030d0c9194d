"""lm-eval scores choices through the server with the same results as the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax
from issun.runtime.demonstration import EMBEDDED
from tests.rendering import render
from tests.server.conftest import Running, embedded_server

pytestmark = pytest.mark.parity

NAME = "issun-embedded"
LAKES = ["琵琶湖", "諏訪湖", "十和田湖", "霞ヶ浦"]
MOUNTAINS = ["北岳", "エベレスト", "富士山", "阿蘇山"]
CAPITALS = ["ローマ", "パリ", "ベルリン", "ロンドン"]
QUESTIONS = [
    ("日本で一番広い湖は?", LAKES, 0),
    ("日本で一番高い山は?", MOUNTAINS, 2),
    ("世界で一番高い山は?", MOUNTAINS, 1),
    ("フランスの首都は?", CAPITALS, 1),
    ("イタリアの首都は?", CAPITALS, 0),
    ("ドイツの首都は?", CAPITALS, 2),
    ("イギリスの首都は?", CAPITALS, 3),
    ("スペインの首都は?", [*CAPITALS[:3], "マドリード"], 3),
]


@pytest.fixture(scope="module")
def embedded() -> Iterator[Model]:
    with Model.load(threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with embedded_server(slots=4) as found:
        yield found


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, embedded: Model) -> dict[str, Any]:
    """A task of lm-eval with eight questions of four choices each."""
    file = tmp_path_factory.mktemp("task") / "questions.jsonl"
    template = embedded.prompts.template
    with file.open("w", encoding="utf-8") as out:
        for question, choices, right in QUESTIONS:
            answers = [f"{question.removesuffix('?')}{choice}です。" for choice in choices]
            prompt = render(template, question, None)
            line = {"prompt": prompt, "choices": answers, "right": right}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    return {
        "task": "places",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(file)},
            "cache_dir": str(file.with_name("cache")),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "choices",
        "doc_to_target": "right",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["huggingface", "remote"])
def test_lm_eval_gets_the_scores_of_the_model(  # noqa: PLR0917
    backend: str,
    ref: ModuleType,
    served: Running,
    embedded: Model,
    task: dict[str, Any],
    tmp_path: Path,
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: '.[dev]'")
    tokenizer = ref.make_tokenizer(EMBEDDED / "spiece.model")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    local = {
        "tokenizer": str(tmp_path / "tokenizer"),
        "use_fast_tokenizer": False,  # the published models use the slow tokenizer
    }
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "base_url": served.url + "/v1/completions",
            "model": NAME,
            "tokenizer_backend": backend,
            **(local if backend == "huggingface" else {}),
            "num_concurrent": 1,
            "max_length": 512,
        },
        tasks=[task],
        batch_size=4,
        log_samples=True,
        bootstrap_iters=0,
    )
    guesses = []
    samples = sorted(found["samples"]["places"], key=lambda sample: int(sample["doc_id"]))
    for sample in samples:
        doc = sample["doc"]
        own = [score(ref, embedded, tokenizer, doc["prompt"], text) for text in doc["choices"]]
        theirs = sample["filtered_resps"]
        np.testing.assert_allclose([float(s) for s, _ in theirs], [s for s, _ in own], atol=1e-3)
        assert [bool(greedy) for _, greedy in theirs] == [greedy for _, greedy in own]
        guesses.append(int(np.argmax([logprob for logprob, _ in own])))
    accuracy = np.mean([g == right for g, (_, _, right) in zip(guesses, QUESTIONS, strict=True)])
    assert found["results"]["places"]["acc,none"] == accuracy >= 0.75


def score(
    ref: ModuleType, model: Model, tokenizer: Any, prompt: str, choice: str
) -> tuple[float, bool]:
    """The log-likelihood of `choice` after `prompt`, and whether it is the greedy answer."""
    ids, start = ref.encode(tokenizer, prompt + choice), len(ref.encode(tokenizer, prompt))
    rows = log_softmax(model.score(ids)[start - 1 : -1])
    wanted = np.array(ids[start:])
    logprobs = rows[np.arange(len(wanted)), wanted]
    return float(logprobs.sum()), bool((rows.argmax(-1) == wanted).all())
