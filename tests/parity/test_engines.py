"""All benchmark engines run the same network: they generate the same tokens as torch, and score.

Each runs in its own process; engines that are not installed are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.benchmarks.divergence import mean_kl
from issun.benchmarks.engines.registry import ENGINES, PEERS, engine_class, missing_packages
from issun.runtime.text.spiece_tokenizer import load_sentencepiece

pytestmark = pytest.mark.parity

COUNT = 12
# The number of prompts for which an engine must start with the same tokens as torch.
LEAST = {"float32": COUNT, "bfloat16": COUNT - 1, "8": COUNT - 2, "4": COUNT - 4}
MOST_KL = 0.02  # of any type; a wrong row or a wrong order of matrices is far above
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
sizes = [path.stat().st_size for path in engine.model_files()]
import numpy as np
np.save(Path(folder) / "logits.npy", engine.logits(json.loads(prompts)[LONG][0]))
print("found:" + json.dumps([found, sizes]))
""".replace("LONG", str(COUNT + 1))


class Found(NamedTuple):
    """The tokens of every prompt, the sizes of the files, and the logits of the long prompt."""

    tokens: list[list[int]]
    sizes: list[int]
    logits: NDArray[np.float32]


Run = Callable[[str], Found]


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`run(name)`: what an engine generates and scores."""
    checkpoint = shared / "checkpoints" / "ja-small"
    sp = load_sentencepiece(checkpoint / "spiece.model")
    text = (shared / "data" / "text" / "novel-eval.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if len(line) > 60][:COUNT]
    short = [sp.encode(line)[:40] for line in lines]
    long = sp.encode(text[:4000])[:900]
    prompts = [(ids, 1) for ids in short]
    prompts += [(short[0], 20), (long, 3), ([short[0][0]], 3), (short[0], 20)]

    @cache
    def run(name: str) -> Found:
        folder = tmp_path_factory.mktemp("engine") / "converted"
        arguments = [name, str(checkpoint), str(folder), json.dumps(prompts)]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        lines = [line for line in done.stdout.splitlines() if line.startswith("found:")]
        tokens, sizes = json.loads(lines[-1].removeprefix("found:"))
        return Found(tokens, sizes, np.load(folder / "logits.npy"))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_tokens_equal_those_of_torch(name: str, run: Run) -> None:
    missing = missing_packages(engine_class(name))
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    expected = run("torch-float32").tokens
    found, sizes, _ = run(name)
    same = sum(a[0] == b[0] for a, b in zip(expected[:COUNT], found[:COUNT], strict=True))
    precision = name.removesuffix("-kv8").removesuffix("_0")
    assert same >= next(least for end, least in LEAST.items() if precision.endswith(end))
    assert found[COUNT] == found[-1], "the cache is not empty at the start of an answer"
    if precision.endswith("float32"):
        assert found == expected
    assert sum(sizes) > 8_000_000


@pytest.mark.sampled
@pytest.mark.parametrize("name", ENGINES | PEERS)
def test_logits_of_all_positions_are_close_to_those_of_torch(name: str, run: Run) -> None:
    missing = missing_packages(engine_class(name))
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    expected, found = run("torch-float32").logits, run(name).logits
    assert found.shape == expected.shape == (900, expected.shape[1])  # more than a batch
    assert mean_kl(expected, found) < MOST_KL
    if name.endswith("float32"):
        np.testing.assert_allclose(found, expected, atol=1e-3)
