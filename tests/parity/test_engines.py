"""All benchmark engines run the same network: they generate the same tokens as torch.

Each runs in its own process; engines that are not installed are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from issun.benchmarks.engines.registry import ENGINES, engine_class, missing_packages
from issun.runtime.tokenizer import load_sentencepiece

pytestmark = pytest.mark.parity

COUNT = 12
# The number of prompts for which an engine must start with the same tokens as torch.
LEAST = {"float32": COUNT, "bfloat16": COUNT - 1, "8": COUNT - 2, "4": COUNT - 4}
SCRIPT = """
import json, sys
from pathlib import Path
from issun.benchmarks.engines.registry import engine_class
name, checkpoint, folder, prompts = sys.argv[1:]
engine = engine_class(name)(Path(checkpoint), Path(folder))
Path(folder).mkdir(parents=True)
engine.convert()
engine.load(1)
found = []
for ids, count in json.loads(prompts):
    yields = sum(1 for _ in engine.generate(ids, count))
    assert yields == count, (yields, count)
    found.append(list(engine.tokens))
sizes = [path.stat().st_size for path in engine.weights()]
print("found:" + json.dumps([found, sizes]))
"""
Run = Callable[[str], tuple[list[list[int]], list[int]]]


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`run(name)`: the tokens of every prompt, and the sizes of the weight files."""
    checkpoint = shared / "checkpoints" / "ja-small"
    sp = load_sentencepiece(checkpoint / "spiece.model")
    text = (shared / "data" / "text" / "novel-eval.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if len(line) > 60][:COUNT]
    short = [sp.encode(line)[:40] for line in lines]
    long = sp.encode(text[:4000])[:900]
    prompts = [(ids, 1) for ids in short]
    prompts += [(short[0], 20), (long, 3), ([short[0][0]], 3), (short[0], 20)]

    @cache
    def run(name: str) -> tuple[list[list[int]], list[int]]:
        folder = tmp_path_factory.mktemp("engine") / "converted"
        arguments = [name, str(checkpoint), str(folder), json.dumps(prompts)]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        lines = [line for line in done.stdout.splitlines() if line.startswith("found:")]
        tokens, sizes = json.loads(lines[-1].removeprefix("found:"))
        return tokens, sizes

    return run


@pytest.mark.parametrize("name", ENGINES)
def test_tokens_equal_those_of_torch(name: str, run: Run) -> None:
    missing = missing_packages(engine_class(name))
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    expected, _ = run("torch-float32")
    found, sizes = run(name)
    same = sum(a[0] == b[0] for a, b in zip(expected[:COUNT], found[:COUNT], strict=True))
    precision = name.removesuffix("-kv8").removesuffix("_0")
    assert same >= next(least for end, least in LEAST.items() if precision.endswith(end))
    assert found[COUNT] == found[-1], "the cache is not empty at the start of an answer"
    if precision.endswith("float32"):
        assert found == expected
    assert sum(sizes) > 8_000_000
