"""Scores and ranks in float32, compared with the log-probabilities of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from issun.export import ExportOptions, export
from issun.runtime import Model

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
NAMES = ("ja-small", "tiny-llama")
Pair = tuple[Model, Any]


@pytest.fixture(scope="module", params=NAMES)
def pair(
    request: pytest.FixtureRequest,
    ref: ModuleType,
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """A float32 bundle, and the checkpoint in transformers."""
    source = shared / "checkpoints" / request.param
    target = tmp_path_factory.mktemp("scores") / "bundle"
    export(source, target, ExportOptions(precision="float32"))
    with Model.load(target, threads=2) as model:
        yield model, ref.load_model(source)


def logprobs(ref: ModuleType, reference: Any, ids: list[int], first: int) -> np.ndarray:
    """The log-probabilities of ids[first:] by transformers."""
    logits = ref.logits_of(reference, ids).astype(np.float64)
    rows = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return np.array([rows[i - 1, ids[i]] for i in range(first, len(ids))])


@pytest.mark.parametrize(("window", "stride"), [(256, 128), (100, 60)])
def test_a_text_in_windows(
    ref: ModuleType, pair: Pair, shared: Path, window: int, stride: int
) -> None:
    model, reference = pair
    text = (shared / "data/text/novel-eval.txt").read_text(encoding="utf-8")[:900]
    score = model.score_text(text, window=window, stride=stride)
    begin, ids = list(model.manifest.tokens.begin), score.ids
    size, done, parts = window - len(begin), 0 if begin else 1, []
    for start in range(0, len(ids), stride):
        stop = min(start + size, len(ids))
        read = [*begin, *ids[start:stop]]
        parts.append(logprobs(ref, reference, read, len(begin) + done - start))
        if (done := stop) == len(ids):
            break
    np.testing.assert_allclose(score.logprobs, np.concatenate(parts), atol=TOLERANCE)


def test_continuations(ref: ModuleType, pair: Pair, shared: Path) -> None:
    model, reference = pair
    texts = ["富士山", "日本で一番高い山は富士山です。", "湖", "絵本", "図鑑と写真集", "東京" * 30]
    for prompt in (model.prompt("日本で一番高い山は?"), model.encode("日本で一番高い山は")):
        for one in model.rank(prompt, texts, slots=4):
            expected = logprobs(ref, reference, [*prompt, *one.ids], len(prompt))
            np.testing.assert_allclose(one.logprobs, expected, atol=TOLERANCE)
