"""Runs on both machines: `answers.py OUT.npz TASK …` writes the arrays that they compare.

Tasks are `logits=BUNDLE:KV`, `packed=BUNDLE:KV` (from packed weights), `greedy`, `constraint`,
`kernels` and `head=GRAPH`. Everything that is not an array is printed as one line of JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from issun.runtime import Model, SamplingParams
from issun.runtime.weights import session, weight_cache

START, ROWS, STEPS = 100, 64, 8  # tokens of the text
HEAD_TURNS = 12
QUESTIONS = ("日本で一番高い山は?", "フランスの首都は?", "3足す5は?", "あなたは誰ですか?")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mountain": {"enum": ["富士山", "北岳", "槍ヶ岳"]},
        "metres": {"type": "integer", "minimum": 0, "maximum": 9999},
    },
    "required": ["mountain", "metres"],
    "additionalProperties": False,
}
TEXT = Path(session.__file__).parents[2] / "benchmarks" / "encyclopedia.txt"


def logits(bundle: str, *, packed: bool = False) -> np.ndarray[Any, Any]:
    """The logits of rows together, then of steps of one row after the first ones."""
    folder, _, kind = bundle.rpartition(":")
    path: Any = None if folder == "embedded" else folder
    with Model.load(path, threads=1, kv_cache=kind or None, keep_packed=packed) as model:  # type: ignore[arg-type]
        ids = model.tokenizer.encode(TEXT.read_text(encoding="utf-8"))[START : START + ROWS]
        rows = model.score(ids)
        cache = model.new_cache()
        model.decoder.prefill(cache, ids[: ROWS - STEPS])
        steps = [model.decoder.step(cache, token) for token in ids[ROWS - STEPS :]]
    return np.concatenate([rows, steps])


def packed_twice(bundle: str) -> np.ndarray[Any, Any]:
    """The logits at the first load, which packs the weights, and at the second, which maps them."""
    weight_cache.MIN_BUNDLE_BYTES = 0
    found = [logits(bundle, packed=True) for _ in range(2)]
    cache = weight_cache.default_cache()
    assert cache
    assert len(cache.entries()) == 1
    assert not list(cache.damaged())
    return np.stack(found)


def answers(*, constrained: bool) -> list[str]:
    """The embedded model's likeliest answers, or its answer in a JSON schema."""
    with Model.load(threads=1) as model:
        if not constrained:
            params = SamplingParams(temperature=0, max_new_tokens=40)
            return [model.generate(model.prompt(text), params).text for text in QUESTIONS]
        constraint = model.constraints.json_schema(SCHEMA)
        params = SamplingParams(temperature=0, max_new_tokens=80, constraint=constraint)
        return [model.generate(model.prompt(QUESTIONS[0]), params).text]


def head_seconds(graph: str) -> list[float]:
    """One row through a head as ONNX Runtime runs it, and as issun opens it, in turns: the best.

    The thread's time is taken, since the emulator shares its core with other programs.
    """
    values = np.random.default_rng(0).standard_normal((1, 2048)).astype(np.float32)
    opened = (
        session.create_session(Path(graph), session.make_options(1)),
        session.open_session(Path(graph), threads=1),
    )
    seconds: list[list[float]] = [[], []]
    for _ in range(HEAD_TURNS):
        for one, measured in zip(opened, seconds, strict=True):
            start = time.thread_time()
            one.run(None, {one.get_inputs()[0].name: values})
            measured.append(time.thread_time() - start)
    return [min(measured) for measured in seconds]


def main(out: str, *tasks: str) -> None:
    """Run the tasks, write the arrays to `out` and print the rest."""
    # ARM's kernels take inputs of 8 bits, so they are compared with those of this CPU.
    session.reduce_range = lambda graph: False
    sys.executable = os.environ.get("ISSUN_TEST_PYTHON", sys.executable)
    arrays: dict[str, Any] = {}
    values: dict[str, Any] = {"page size": mmap.PAGESIZE}
    for task in tasks:
        name, _, argument = task.partition("=")
        if name == "logits":
            arrays[task] = logits(argument)
        elif name == "packed":
            arrays[task] = packed_twice(argument)
        elif name == "head":
            values[name] = head_seconds(argument)
        elif name == "kernels":
            values[name] = [session.integer_matmul_saturates(), session.rounds_activations()]
        else:
            values[name] = answers(constrained=name == "constraint")
    np.savez(out, **arrays)
    print(json.dumps(values, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
