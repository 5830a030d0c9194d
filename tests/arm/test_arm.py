"""An emulated 64-bit ARM CPU computes what this one does; `make arm` sets it up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from issun.runtime.decoding.distributions import log_softmax, row_kl
from tests.arm.answers import SCHEMA
from tests.arm.machine import READY, command, environment
from tests.conftest import Bundles

pytestmark = [
    pytest.mark.arm,
    pytest.mark.skipif(not READY.exists(), reason="no ARM machine is emulated: make arm"),
]
CPUS = ["cortex-a72", *(pytest.param(cpu, marks=pytest.mark.slow) for cpu in ("cortex-a76", "max"))]
Arrays = dict[str, NDArray[np.float32]]
PROGRAM = Path(__file__).with_name("answers.py")


def run(folder: Path, cpu: str, *tasks: str, page_size: int = 4096) -> tuple[Arrays, Any]:
    """Run tasks of `answers.py` on the emulated CPU, or on this one if `cpu` is empty."""
    out = folder / f"{cpu}.npz"
    words = [str(PROGRAM), str(out), *tasks]
    done = subprocess.run(
        command(cpu, *words, page_size=page_size) if cpu else [sys.executable, *words],
        env=environment(cpu, folder / "weights") if cpu else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as file:
        return dict(file), json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("cpu", CPUS)
def test_logits(cpu: str, ja_small: Bundles, tmp_path: Path) -> None:
    kinds = [(precision, kind) for precision in ("int8", "int4") for kind in ("float32", "int8")]
    tasks = {f"logits={ja_small(p, kv_cache='int8')}:{kind}": (p, kind) for p, kind in kinds}
    tasks |= {f"logits={ja_small('float32')}:float32": ("float32", "float32")}
    tasks |= {"logits=embedded:": ("embedded", "float32")}
    ours, _ = run(tmp_path, "", *tasks)
    theirs, _ = run(tmp_path, cpu, *tasks)
    divergences = {}
    for task, kind in tasks.items():
        off = np.abs(ours[task] - theirs[task]).max()
        divergences[kind] = row_kl(log_softmax(ours[task]), log_softmax(theirs[task])).mean()
        print(f"{cpu} {kind}: KL {divergences[kind]:.6f}, largest difference {off:.2g}")
        assert kind[0] != "float32" or off <= 1e-4
    # The text is unlike all that the embedded model was trained on, so its logits are unsure.
    assert divergences.pop(("embedded", "float32")) <= 2e-3
    for (precision, kv_cache), divergence in divergences.items():
        # With dot products int4's products are KleidiAI's, which round differently.
        kleidi = precision == "int4" and cpu != "cortex-a72"
        assert divergence <= (7e-4 if kv_cache == "int8" or kleidi else 5e-4)


@pytest.mark.parametrize("cpu", CPUS)
def test_answers(cpu: str, tmp_path: Path) -> None:
    tasks = ("greedy", "constraint", "kernels")
    (_, ours), (_, theirs) = run(tmp_path, "", *tasks), run(tmp_path, cpu, *tasks)
    assert len(ours["greedy"]) == 4
    assert theirs["greedy"] == ours["greedy"]
    (answer,) = theirs["constraint"]
    assert json.loads(answer)["mountain"] in SCHEMA["properties"]["mountain"]["enum"]
    assert theirs["kernels"] == [False, cpu != "cortex-a72"]


@pytest.mark.parametrize("page_size", [4096, pytest.param(16384, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cpu", ["cortex-a72", pytest.param("cortex-a76", marks=pytest.mark.slow)])
def test_packed_weights(cpu: str, page_size: int, ja_small: Bundles, tmp_path: Path) -> None:
    bundle = f"{ja_small('int8', kv_cache='int8')}:float32"
    tasks = (f"logits={bundle}", f"packed={bundle}")
    arrays, values = run(tmp_path, cpu, *tasks, page_size=page_size)
    assert values["page size"] == page_size
    plain, packed = (arrays[task] for task in tasks)
    assert np.array_equal(packed[0], plain)
    assert np.array_equal(packed[1], plain)


@pytest.mark.slow  # how fast an emulated kernel is depends on this CPU too
def test_the_head_is_five_times_as_fast_without_dot_products(tmp_path: Path) -> None:
    graph = tmp_path / "head.onnx"
    ir.save(_head(width=2048, outputs=4096, block=32), graph)
    _, values = run(tmp_path, "cortex-a72", f"head={graph}")
    before, now = values["head"]
    print(f"head of one row: {before / now:.1f} times as fast")
    assert before >= 5 * now


def _head(width: int, outputs: int, block: int) -> ir.Model:
    """The head of an int8 bundle alone, with random weights."""
    random, tape = np.random.default_rng(0), ir.tape.Tape()
    rows = ir.val("rows", ir.DataType.FLOAT, ("rows", width))
    logits = ir.val("logits", ir.DataType.FLOAT, ("rows", outputs))
    shape = (outputs, width // block)
    weight = random.integers(0, 256, (*shape, block), dtype=np.uint8)
    scales = random.random(shape, dtype=np.float32)
    constants = [
        tape.initializer(ir.tensor(array, name=name))
        for name, array in (("weight", weight), ("scales", scales))
    ]
    sizes = {"K": width, "N": outputs, "bits": 8, "block_size": block, "accuracy_level": 4}
    domain = "com.microsoft"
    tape.op("MatMulNBits", [rows, *constants], sizes, domain=domain, output=logits)
    graph = ir.Graph(
        [rows],
        [logits],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 21, domain: 1},
        name="head",
    )
    return ir.Model(graph, ir_version=10)
