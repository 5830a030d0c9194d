"""The memory that a chunk's activations are estimated to need, against what a process takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export import ExportOptions, export

SLOTS, ROWS = 8, 127  # several slots, so that activations outweigh everything else
SCRIPT = """
import re, sys
from pathlib import Path
from issun.runtime import Model

def read(name):
    status = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+)", status)[1]) * 1024

slots, rows = int(sys.argv[2]), int(sys.argv[3])
with Model.load(sys.argv[1], threads=1) as model:
    decoder = model.decoder
    cache = decoder.new_cache(slots)
    decoder.forward(cache, [[1]], [0])  # what the first call allocates once
    before = read("RssAnon")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    decoder.forward(cache, [[5] * rows] * slots, [0])
    grown = read("VmHWM") - read("RssFile") - before - cache.nbytes
    print(grown / (slots * rows), decoder._working_bytes)
"""
_GPT2 = {"n_embd": 512, "n_head": 4, "n_inner": 2048, "n_layer": 2, "n_positions": 256}
_OTHERS = {
    "hidden_size": 512,
    "num_attention_heads": 4,
    "intermediate_size": 2048,
    "max_position_embeddings": 256,
}
_GROUPED = {**_OTHERS, "num_key_value_heads": 2, "head_dim": 128}
CONFIGS = {"gpt2": _GPT2, "gpt-neox": _OTHERS, "llama": _GROUPED, "qwen3": _GROUPED}


@pytest.mark.sampled
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a process's peak can be reset on Linux only"
)
@pytest.mark.parametrize(
    ("family", "precision"),
    [("gpt2", "int8"), ("gpt-neox", "int8"), ("llama", "int4"), ("qwen3", "int4")],
)
def test_a_chunk_takes_no_more_than_estimated(family: str, precision: str, tmp_path: Path) -> None:
    config = {**SHAPES[family]["tiny"], **CONFIGS[family]}
    make_checkpoint(tmp_path / "checkpoint", config)
    unfitted = False if precision == "int4" else None
    options = ExportOptions(precision=precision, gptq=unfitted)  # type: ignore[arg-type]
    export(tmp_path / "checkpoint", tmp_path / "bundle", options)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "bundle"), str(SLOTS), str(ROWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured, estimated = map(float, done.stdout.split())
    assert 0.55 * estimated < measured <= 1.05 * estimated
