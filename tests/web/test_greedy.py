"""Greedy tokens of the engine in Chromium beside Python's, along Python's tokens.

Kernels of WebAssembly round differently, and rounding to int8 amplifies that: where Python's two
best logits are less than 0.5 apart, the order may differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from issun.runtime import Model, SamplingParams
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import FileInfo, read_manifest, sha256_of, write_manifest
from issun.runtime.text.turn import Turn
from issun.runtime.weights.proto import parse_model
from issun.web import write_site
from issun.web.unpacking import UnpackedWeights
from tests.web.conftest import MakeSite, hosting

CLOSE = 0.5  # logits
PARAMS = SamplingParams(temperature=0)

# Open the site's model in a page, and return its choices along given answers.
CHOICES = """async ({ cases, growing }) => {
  const site = new URL("./", location.href);
  const load = (path) => import(new URL(path, site).href);
  const { openModel } = await load("engine/open.mjs");
  const { Sampler } = await load("engine/sampler.mjs");
  const { GrowingCache } = await load("engine/growing_cache.mjs");
  const { HeapCache } = await load("engine/heap_cache.mjs");
  let cache = null;
  const open = (ort, session, manifest) => (cache = new GrowingCache(ort, session, manifest));
  const { model } = await openModel(site, { threads: 1, ...(growing && { open }) });
  const sampler = new Sampler({ ...model.defaults, temperature: 0 }, model.manifest);
  const found = [];
  for (const { messages, most, answer } of cases) {
    const { ids } = model.prompt(messages, most);
    let logits = await model.decoder.prefill(ids, async () => true);
    const choices = [];
    for (const [place, id] of answer.entries()) {
      choices.push(sampler.sample(logits, ids, answer.slice(0, place)));
      if (place < answer.length - 1) logits = await model.decoder.step([id]);
    }
    found.push({ ids, choices });
  }
  return found;
}"""


@dataclass
class Case:
    """A conversation, its prompt's ids, and Python's answer with the gap at each token."""

    messages: list[dict[str, str]]
    ids: list[int]
    answer: list[int]
    gaps: list[float]


def greedy(model: Model, turns: Sequence[Turn], message: str, count: int, cache: Any) -> Case:
    """Python's `count` next tokens, also after the end of the answer."""
    ids = model.prompts.chat([], turns, message, max_new_tokens=count).ids
    sampler = model._sampler(PARAMS)
    logits = model.decoder.prefill(cache, ids[cache.keep_common_prefix(ids) :])
    answer: list[int] = []
    gaps = []
    for _ in range(count):
        processed = sampler._process(logits, ids, answer)
        second, best = np.partition(processed, -2)[-2:]
        answer.append(int(processed.argmax()))
        gaps.append(float(best - second))
        logits = model.decoder.step(cache, answer[-1])
    said = [text for turn in turns for text in (turn.message, turn.reply)]
    messages = [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate([*said, message])
    ]
    return Case(messages, ids, answer, gaps)


def compare(browser: Any, site: Path, cases: list[Case], *, growing: bool = False) -> int:
    """Assert that differences are close calls, and return how many there are."""
    given = [{"messages": c.messages, "most": len(c.answer), "answer": c.answer} for c in cases]
    with hosting(site) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}NOTICE.txt")  # not the chat page, which would open the model too
        found = page.evaluate(CHOICES, {"cases": given, "growing": growing})
    differences = 0
    for case, own in zip(cases, found, strict=True):
        assert own["ids"] == case.ids
        for expected, token, gap in zip(case.answer, own["choices"], case.gaps, strict=True):
            if token != expected:
                differences += 1
                assert gap < CLOSE
    return differences


def python_cases(folder: Path, questions: Sequence[str], count: int, turns: int = 0) -> list[Case]:
    """Each question alone, and a conversation of `turns` of them."""
    # `unpacked` adds operators that issun does not export.
    with Model.load(folder, threads=1, trust=True) as model:
        cache = model.new_cache()
        cases = [greedy(model, [], question, count, cache) for question in questions]
        said: list[Turn] = []
        for question in questions[:turns]:
            cases.append(greedy(model, said, question, count, cache))
            answer = cases[-1].answer
            ends = model.manifest.tokens.end_ids
            kept = next((i for i, token in enumerate(answer) if token in ends), len(answer))
            said.append(Turn(question, model.tokenizer.decode(answer[:kept]) or "はい"))
    return cases


@pytest.mark.parametrize("growing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_few_answers(browser: Any, make_site: MakeSite, growing: bool) -> None:
    questions = ["日本で一番高い山は?", "17足す8は?"]
    cases = python_cases(EMBEDDED, questions, 12, turns=2)
    assert compare(browser, make_site(None), cases, growing=growing) <= 2


def unpacked(folder: Path, target: Path) -> Path:
    """A bundle whose linear layers are those that a browser gets, for Python."""
    shutil.copytree(folder, target)
    manifest = read_manifest(folder)
    model = parse_model((folder / "model.onnx").read_bytes())
    weights = UnpackedWeights(model.graph, folder / "model.onnx.data", "model.onnx.data")
    (target / "model.onnx.data").write_bytes(b"".join(weights.chunks()))
    (target / "model.onnx").write_bytes(model.SerializeToString())
    files = {
        name: FileInfo((target / name).stat().st_size, sha256_of(target / name))
        for name in manifest.files
    }
    write_manifest(target, replace(manifest, files=files))
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "embedded",
        "ja-small",
        "ja-small with an int8 KV cache",
        "ja-small in int4",
    ],
)
def test_twenty_answers_and_a_conversation_of_six_turns(
    *,
    browser: Any,
    tmp_path: Path,
    runtime: Path,
    shared: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    name: str,
) -> None:
    kind = "int8" if "int8" in name else "float32"
    folder = EMBEDDED
    if name != "embedded":
        precision = "int4" if name.endswith("int4") else "int8"
        folder = request.getfixturevalue("ja_small")(precision, kv_cache=kind)
    lines = (shared / "data" / "text" / "instruction_ja.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in lines.splitlines()[:400]]
    texts = [record["utterances"][0]["text"] for record in records]
    texts = [text for text in texts if len(text) < 60]
    site = write_site(folder, tmp_path / "site", runtime=runtime)
    own = unpacked(folder, tmp_path / "unpacked") if site.unpacked else folder
    cases = python_cases(own, texts[:20], 60, turns=6)
    differences = compare(browser, tmp_path / "site", cases)
    record_property("differences", differences)
    print(f"{name}: {differences} of {sum(len(c.answer) for c in cases)} tokens differ")
