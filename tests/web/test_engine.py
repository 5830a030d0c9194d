"""The engine in node beside Python: prompts, text streams, filters and answers."""

from __future__ import annotations

import random
import subprocess
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from issun.runtime import SamplingParams
from issun.runtime.decoding.filters import softmax
from issun.runtime.decoding.sampling import Sampler, Vocabulary
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.errors import ContextError
from issun.runtime.manifest import Template, read_manifest
from issun.runtime.text.prompt import PromptBuilder
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.stream import TextStream
from issun.server.fitting import fit
from issun.server.messages import parse_dialogue
from issun.server.types import Message
from tests.web.conftest import MakeSite
from tests.web.driving import pythons_answers
from tests.web.node import MODULES, NODE, ROOT, needs_node, run
from tests.web.texts import FIXED

pytestmark = needs_node
MANIFEST = read_manifest(EMBEDDED)
ROWS = MANIFEST.architecture.vocab_size
QUESTIONS = ["日本で一番高い山は?", "フランスの首都は?", "17足す8は?", "あなたは誰ですか?"]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(EMBEDDED / MANIFEST.tokens.file, MANIFEST.tokens.special)


class FakeService:
    """What `fit` needs of the server's service."""

    def __init__(self, prompts: PromptBuilder, limit: int) -> None:
        from collections import OrderedDict
        from types import SimpleNamespace

        self.dropped: OrderedDict[bytes, int] = OrderedDict()
        self.model = SimpleNamespace(prompts=prompts, decoder=SimpleNamespace(n_positions=limit))


def conversations() -> list[dict[str, Any]]:
    """Growing conversations with and without a role, continued answers, and too long texts."""
    rng = random.Random(3)
    words = [text for text in FIXED if text.strip() and "\ud83d" not in text]
    cases = []
    for role in ("", "あなたは「いっすん」です。\n関西弁で話してください。"):
        messages = [{"role": "system", "content": role}] if role else []
        for _ in range(14):
            messages = [*messages, {"role": "user", "content": rng.choice(words)}]
            cases.append({"messages": messages, "most": rng.choice([5, 100, 512, 1000])})
            messages = [*messages, {"role": "assistant", "content": rng.choice(words)}]
            cases.append({"messages": messages, "most": 100})
    odd = [
        [("assistant", "はい"), ("user", "  "), ("user", "一"), ("user", "二\r\n三")],
        [("user", "あ" * 600)],
        [("user", "ー漢字" * 110)],
    ]
    texts = [[{"role": r, "content": c} for r, c in messages] for messages in odd]
    return cases + [{"messages": one, "most": most} for one in texts for most in (100, 512)]


@pytest.mark.parametrize("mark", ["", "…"])
def test_prompts_are_those_of_the_server(tokenizer: SentencePieceTokenizer, mark: str) -> None:
    """Also with a template that marks where turns were dropped."""
    cases = conversations()
    limit = MANIFEST.architecture.n_positions
    assert isinstance(MANIFEST.prompt, Template)
    prompt = replace(MANIFEST.prompt, chat=replace(MANIFEST.prompt.chat, dropped=mark))
    service: Any = FakeService(PromptBuilder(prompt, tokenizer, limit), limit)
    found = run("prompts", EMBEDDED, replace(MANIFEST, prompt=prompt), cases=cases)
    dropped = 0
    for case, result in zip(cases, found, strict=True):
        dialogue = parse_dialogue([Message(**message) for message in case["messages"]])
        try:
            fitted = fit(service, dialogue, case["most"])
        except ContextError:
            assert result == {"error": "errorContext"}
            continue
        expected = {"ids": fitted.ids, "dropped": fitted.dropped_turns}
        assert result == expected | {"continued": fitted.continued}
        dropped += fitted.dropped_turns > 0
    assert dropped > 5
    assert {"error": "errorContext"} in found


def test_streams_of_text_are_pythons(tokenizer: SentencePieceTokenizer) -> None:
    rng = random.Random(4)
    newline = tokenizer.encode("山\\n\\n川\\n")
    cases = []
    for _ in range(300):
        ids = rng.choices([*range(MANIFEST.tokens.pieces)], k=rng.randint(0, 12))
        for _ in range(rng.randint(0, 2)):
            place = rng.randint(0, len(ids))
            ids[place:place] = newline
        stop = rng.choice([[], [], ["川"], ["\n"], ["山\n", "\n川"]])
        cases.append({"ids": ids, "before": rng.choice([[], newline[:2]]), "stop": stop})
        cases[-1]["whole"] = rng.random() < 0.5
    for case, pieces in zip(cases, run("streams", EMBEDDED, cases=cases), strict=True):
        stream = TextStream(tokenizer, MANIFEST.prompt.newline, case["stop"])
        stream.continue_after(case["before"])
        expected = []
        for token in case["ids"]:
            expected.append(stream.push(token))
            if stream.stopped:
                break
        if not stream.stopped:
            expected.append(stream.finish() if case["whole"] else stream.pause())
        assert pieces == expected, case


SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3, "top_k": 5},
    {"temperature": 1.5, "top_p": 0.5},
    {"temperature": 0.01, "top_p": 0.999},
    {"temperature": 2.0, "top_p": 0.9999},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.05},
    {"min_p": 0.3},
    {"typical_p": 0.4},
    {"top_k": 50, "typical_p": 0.9, "temperature": 0.9},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "presence_penalty": 0.6, "frequency_penalty": -0.4},
    {"no_repeat_ngram_size": 2, "temperature": 0},
    {"no_repeat_ngram_size": 1, "temperature": 0},
    {"logit_bias": {"9": 5.0, "10": -7.0}},
    {"banned_ids": (7, 8), "banned_first_ids": (9,), "banned_sequences": ((5, 6), (11,))},
    {"min_new_tokens": 4, "max_new_tokens": 9, "temperature": 0},
    {"min_length": 9},
]


def test_filters_keep_what_pythons_keep() -> None:
    rng = np.random.default_rng(5)
    cases = []
    for params in SAMPLING:
        for answer in ([], [5, 6, 5], rng.integers(7, 60, 5).tolist()):
            logits = (rng.standard_normal(ROWS) * 3).astype(np.float32)
            cases.append(
                {"logits": logits.tolist(), "params": params, "prompt": [4, 5, 6], "answer": answer}
            )
    for case, found in zip(cases, run("samplers", EMBEDDED, cases=cases), strict=True):
        processed, left = python_filters(case)
        own = np.array([-np.inf if x is None else x for x in found["processed"]], np.float32)
        assert np.allclose(own, processed, rtol=1e-6), case["params"]
        if case["params"].get("temperature") == 0:
            assert found["best"] == processed.argmax()
            continue
        assert found["ids"] == np.flatnonzero(np.isfinite(left)).tolist(), case["params"]
        assert np.allclose(softmax(np.array(found["left"])), softmax(left[found["ids"]]), atol=1e-6)
        assert found["best"] in found["ids"]


def python_filters(case: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Python's logits after bans and penalties, and those that all filters leave."""
    params = dict(case["params"])
    if "logit_bias" in params:
        params["logit_bias"] = {int(key): value for key, value in params["logit_bias"].items()}
    tokens = MANIFEST.tokens
    vocabulary = Vocabulary(rows=ROWS, pieces=tokens.pieces, unk=tokens.unk, ends=tokens.end_ids)
    sampler = Sampler(SamplingParams(**params), vocabulary, np.random.default_rng(0))
    logits = np.array(case["logits"], np.float32)
    processed = sampler._process(logits, case["prompt"], case["answer"])
    warped, ids = sampler._warp(processed)
    left = np.full(ROWS, -np.inf, np.float32)
    left[np.arange(ROWS) if ids is None else ids] = warped
    return processed, left


def test_draws_follow_the_distribution_and_repeat_with_a_seed() -> None:
    logits: list[float | None] = [None] * ROWS
    weights = {10: 0.5, 20: 0.3, 30: 0.2}
    for token, weight in weights.items():
        logits[token] = float(np.log(weight))
    params = {"temperature": 1, "seed": 5}
    draws = run("draws", EMBEDDED, logits=logits, params=params, count=1500)
    assert draws[:50] == run("draws", EMBEDDED, logits=logits, params=params, count=50)
    for token, weight in weights.items():
        assert draws.count(token) / 1500 == pytest.approx(weight, abs=0.04)


def test_random_numbers_are_uniform() -> None:
    values = np.array(run("uniform", EMBEDDED, seed=2**31 - 1, count=20_000))
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, 20, (0, 1))
    assert np.abs(counts - 1000).max() < 150


def test_answers_of_the_example_in_node_are_pythons(make_site: MakeSite) -> None:
    if not (MODULES / "onnxruntime-node").is_dir():
        pytest.skip("there is no onnxruntime-node in build/web")
    example = ROOT / "examples" / "node.mjs"
    found = subprocess.run(
        [str(NODE), str(example), str(make_site(None)), *QUESTIONS],
        cwd=MODULES.parent,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == pythons_answers(QUESTIONS)


def test_types_of_the_engine() -> None:
    """tsc finds nothing in the engine's JSDoc types."""
    tsc = MODULES / ".bin" / "tsc"
    if not tsc.exists():
        pytest.skip("there is no TypeScript in build/web")
    found = subprocess.run(
        [str(tsc), "-p", "web/tsconfig.json"],
        cwd=MODULES.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout
