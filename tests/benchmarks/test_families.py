"""The comparison of families by the bytes that a token reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from issun.benchmarks import families
from issun.benchmarks.bandwidth import Bandwidth
from issun.benchmarks.energy import Joules
from issun.benchmarks.errors import BenchError
from issun.benchmarks.families import COMPARED, REFERENCE, make_bundle, measure, table
from issun.benchmarks.measured import EngineResult, Machine, Results
from issun.benchmarks.shapes import SHAPES
from issun.runtime.manifest import read_manifest


def results(*engines: EngineResult) -> Results:
    machine = Machine(cpu="", flags=[], cores=1, memory_bytes=1, system="", python="")
    return Results(
        date="",
        issun="",
        commit="",
        machine=machine,
        checkpoint="",
        parameters=1,
        shape={},
        seed=0,
        engines=list(engines),
    )


def engine(name: str, weight_bytes: int, *seconds: float) -> EngineResult:
    samples = {"decode-128": list(seconds)}
    return EngineResult(
        name=name, label=name, threads=1, weight_bytes=weight_bytes, samples=samples
    )


def test_speeds_are_per_byte_and_relative_to_the_first_bundle() -> None:
    found = table(
        results(engine("gpt2", 100_000_000, 0.01, 0.02, 0.3), engine("llama", 400_000_000, 0.1))
    )
    _, first, second = (line.split() for line in found.splitlines())
    assert first == ["gpt2", "100.0", "50.0", "5.0", "1.00"]  # the median, 0.02 s a token
    assert second == ["llama", "400.0", "10.0", "4.0", "0.80"]


def test_a_bundle_that_was_not_measured_is_an_error_with_the_reason() -> None:
    failed = EngineResult(name="llama", label="llama", threads=1, status="failed", reason="no room")
    with pytest.raises(BenchError, match="llama was not measured: no room"):
        table(results(engine("gpt2", 1, 1.0), failed))


def test_shapes_are_known_and_the_reference_is_the_1_3_b_shape() -> None:
    assert COMPARED[0] == REFERENCE
    assert all(size in SHAPES[family] for family, size in COMPARED)
    config = SHAPES["gpt2"]["1b"]
    assert (config["n_layer"], config["n_embd"], config["vocab_size"]) == (24, 2048, 44_928)


@pytest.mark.slow
def test_bundles_of_few_layers_are_made_once_and_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [make_bundle(tmp_path, family, "tiny", 1, "int4") for family in ("gpt2", "llama")]
    assert [read_manifest(bundle).architecture.n_layer for bundle in bundles] == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gpt2-tiny-1-int4",
        "llama-tiny-1-int4",
    ]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(families, "export", fail)
    assert make_bundle(tmp_path, "llama", "tiny", 1, "int4") == bundles[1]
    monkeypatch.setattr(
        "issun.benchmarks.runner.read_bandwidth", lambda *_: Bandwidth([1e9], Joules())
    )
    found = measure(bundles, tmp_path / "results.json", rounds=1, tokens=3)
    assert [engine.status for engine in found.engines] == ["measured", "measured"]
    assert len(found.engines[1].samples["decode-128"]) == 3
    shares = [float(line.split()[-1]) for line in table(found).splitlines()[1:]]
    assert shares[0] == 1
    assert math.isfinite(shares[1])
