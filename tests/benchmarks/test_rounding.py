"""How much answers depend on their neighbours: by hand, and on a bundle where they do not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from issun.benchmarks.rounding import answers, compare, prompts
from tests.conftest import Bundles


def found(*steps: tuple[str, float, dict[str, float]]) -> dict[str, Any]:
    tokens, values, top = zip(*steps, strict=True)
    return {"tokens": list(tokens), "token_logprobs": list(values), "top_logprobs": list(top)}


def test_gaps_and_rounding() -> None:
    first = found(("山", -0.5, {}), ("川", -0.25, {"川": -0.25, "湖": -0.5}), ("。", -9, {}))
    second = found(("山", -0.75, {}), ("湖", -0.25, {}), ("。", -1, {}))
    assert compare([first, second, first], [first, second, second]) == (1, 0.25, 0.25)
    assert compare([first], [first]) == (0, 0, 0)
    longer = found(("山", -0.5, {"山": -0.5}), ("川", -0.25, {"川": -0.25}))
    assert compare([longer], [found(("湖", -0.5, {}))]) == (1, math.inf, 0)


@pytest.mark.slow
def test_nothing_differs_with_int8_and_an_int8_cache(bundle: Bundles) -> None:
    rows = [
        {
            "custom_id": text,
            "url": "/v1/completions",
            "body": {"prompt": text, "max_tokens": 3, "temperature": 0, "logprobs": 2},
        }
        for text in prompts(6)
    ]
    folder = bundle("head-8", "int8", kv_cache="int8")
    one, two = (answers(folder, rows, workers, 17 - 8 * workers) for workers in (1, 2))
    assert [len(answer["tokens"]) for answer in one] == [3] * 6
    assert one == two
