"""kill -9 of processes that write: visible files are complete, and the next run works."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from issun.benchmarks.small_tokenizers import train_tokenizer
from issun.export.checkpoint import open_checkpoint
from issun.export.target import clear_remains
from issun.runtime import Model
from issun.runtime.files import has_valid_checksum
from issun.runtime.manifest import read_manifest, verify_hashes
from issun.runtime.saved import read_conversation
from issun.runtime.weights.weight_cache import WeightCache
from tests.fuzz.targets import prepare

ROOT = Path(__file__).parent.parent.parent
_START = 120.0  # seconds until a writer has written once
_SPREAD = {
    "export": 0.5,
    "packing": 0.3,
    "saving": 0.05,
    "fine-tuning": 3.0,
}  # seconds until the kill


def kill(rounds: int) -> list[str]:
    """Kill writers in turn at random moments; returns the faults."""
    kinds = ["export", "packing", "saving"]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("accelerate"):
        kinds.append("fine-tuning")
    else:
        print("There is no torch: fine-tuning is not killed.", flush=True)
    faults, counts, rng = [], Counter[str](), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="issun-soak-") as name:
        folder = Path(name)
        train_tokenizer(folder / "spiece.model", pieces=400)
        prepare(folder, folder / "spiece.model")
        for number in range(rounds):
            kind = kinds[number % len(kinds)]
            out = folder / "out" / kind
            out.mkdir(parents=True, exist_ok=True)
            _kill_one(kind, folder, out, rng.uniform(0, _SPREAD[kind]))
            counts[kind] += 1
            try:
                CHECKS[kind](out)
            except Exception as error:  # any error caused by an incomplete file
                faults.append(f"{kind}, round {number}: {error!r}")
            if kind != "export" or rng.random() < 0.1:  # usually there is a bundle to replace
                shutil.rmtree(out)
    print(f"killed: {dict(counts)}", flush=True)
    return faults


def _kill_one(kind: str, folder: Path, out: Path, seconds: float) -> None:
    """Start a writer, and kill it some time after it has written once."""
    writer = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.soak.writer", kind, folder, out],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    too_long = threading.Timer(_START, writer.kill)
    too_long.start()
    with writer.stdout:
        try:
            if writer.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{kind}: the writer does not write")
            time.sleep(seconds)
        finally:
            too_long.cancel()
            writer.kill()
            writer.wait()


def _check_export(out: Path) -> None:
    """There is still a bundle, and nothing else once the next export has begun."""
    clear_remains(out / "bundle", lambda template, **values: None)
    _expect(out, {"bundle"})
    verify_hashes(out / "bundle", read_manifest(out / "bundle"))
    with Model.load(out / "bundle", threads=1) as model:
        model.score([5, 6, 7])


def _check_packing(out: Path) -> None:
    cache = WeightCache(out)
    if damaged := list(cache.damaged()):
        raise ValueError(f"damaged: {damaged}")
    for path in out.glob("*/*.kv"):
        if not has_valid_checksum(path):
            raise ValueError(f"{path} is not whole")
    cache.clear()
    _expect(out, {".lock"})


def _check_saving(out: Path) -> None:
    for path in out.iterdir():
        if path.suffix == ".json":
            read_conversation(path)
        elif path.suffix == ".kv":
            if not has_valid_checksum(path):
                raise ValueError(f"{path} is not whole")
        elif not path.name.startswith(".issun."):
            raise ValueError(f"{path} is something else")


def _check_finetuning(out: Path) -> None:
    for run in out.glob("run-*"):
        for epoch in run.glob("epoch-*"):
            for tensor in open_checkpoint(epoch).tensors.values():
                tensor.read()
        for name in ("run.json", "epochs.json"):
            if (run / name).exists():
                json.loads((run / name).read_text(encoding="utf-8"))


def _expect(folder: Path, names: set[str]) -> None:
    if (found := {path.name for path in folder.iterdir()}) - names:
        raise ValueError(f"{folder} holds {sorted(found)}")


CHECKS: dict[str, Callable[[Path], None]] = {
    "export": _check_export,
    "packing": _check_packing,
    "saving": _check_saving,
    "fine-tuning": _check_finetuning,
}
