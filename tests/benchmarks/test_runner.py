"""Runs of the harness: rounds, interruptions, failures and stored results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from issun.benchmarks import runner, suite, workers
from issun.benchmarks.bandwidth import Bandwidth, read_bandwidth
from issun.benchmarks.energy import Joules, Meter, Reading
from issun.benchmarks.engines.registry import ENGINES
from issun.benchmarks.errors import BenchError
from issun.benchmarks.interleave import TIME_SLICE, InterleavedWorker
from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.measured import Results, depths, read_results, write_results
from issun.benchmarks.plan import Target
from issun.benchmarks.shapes import SHAPES
from issun.benchmarks.worker import Job
from issun.runtime import ParameterError
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import read_manifest
from tests.benchmarks.test_memory import python


def request(**changes: Any) -> suite.Request:
    asked: dict[str, Any] = {
        "threads": (1,),
        "rounds": 2,
        "prefills": (8, 32),
        "depths": (0, 32),
        "contexts": (20, 60),
        "new_tokens": 4,
        "seed": 3,
    }
    return suite.Request(**(asked | changes))


@pytest.fixture(autouse=True)
def quick_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        runner, "read_bandwidth", lambda threads, *_: Bandwidth([1e9] * threads, Joules())
    )


def run(output: Path, *, resume: bool = False, **changes: Any) -> tuple[Results, list[str]]:
    reported: list[str] = []

    def report(text: str) -> None:  # without the time, which differs
        reported.append(re.sub(r" \((estimating|about) [^)]*\)$", "", text))

    found = suite.run(request(**changes), output, None, resume=resume, report=report)
    assert re.fullmatch(r"took \d+:\d\d", reported.pop())
    assert read_results(output) == found
    assert not output.with_suffix(".work").exists()
    return found, reported


@pytest.mark.slow
def test_every_test_of_every_round_is_stored(tmp_path: Path) -> None:
    found, reported = run(tmp_path / "r.json", turn=True)
    (entry,) = found.engines
    assert (entry.name, entry.status, entry.rounds) == ("embedded", "measured", 2)
    assert {name: len(samples) for name, samples in entry.samples.items()} == {
        "load-first": 1,
        "load": 2,
        **{"cold-8": 2, "cold-32": 2, "prefill-8": 2, "prefill-32": 2},
        **{"decode-0": 8, "decode-32": 8, "turn-reuse": 2, "turn-fresh": 2},
        **{"turn-ahead": 2, "turn-reading": 2},
    }
    assert all(second > 0 for samples in entry.samples.values() for second in samples)
    assert entry.bundle
    assert 5_900_000 < entry.weight_bytes < entry.disk_bytes < 9_000_000
    assert entry.kv_bytes == 6 * 2 * 256 * 4
    tests = ["cold-8", "warm-8", "cold-32", "warm-32"]
    tests = ["load", "warm-0", *tests, "turn"]
    assert reported == [
        "read bandwidth, 1 threads",
        *("first load: embedded, 1 threads", "  load-first"),
        *("memory at 20 tokens: embedded, 1 threads", "memory at 60 tokens: embedded, 1 threads"),
        *("round 1 of 2: embedded, 1 threads", *(f"  {test}" for test in tests)),
        *("round 2 of 2: embedded, 1 threads", *(f"  {test}" for test in tests)),
    ]


@pytest.mark.slow
def test_memory_has_kinds_and_energy_is_null_where_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "Meter", lambda: Meter(tmp_path))
    found, _ = run(tmp_path / "r.json", rounds=1)
    (entry,) = found.engines
    assert set(entry.memory) == {20, 60}
    for memory in entry.memory.values():
        assert memory.peak >= memory.resting > 0.7 * memory.peak  # almost nothing is freed
        assert memory.peak >= memory.anonymous + memory.file + memory.shared > 2**20
    assert entry.energy == {20: Joules(), 60: Joules()}
    assert (found.idle, found.byte_energy) == (Joules(), {1: Joules()})


def test_the_energy_of_a_token_is_that_of_decoding_above_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 J in 2 s with 1 W of idling are 8 J, for the four tokens after the first one."""
    zone = tmp_path / "zone"
    meter = Meter(tmp_path)
    meter._ranges["package"][zone] = 10**9
    plan: Any = SimpleNamespace(new_tokens=5)
    results: Any = SimpleNamespace(idle=Joules(package=1.0))
    one = runner.Runner(plan, results, tmp_path, print, meter)
    readings = {
        "first token": Reading(5.0, {zone: 4_000_000}),
        "answered": Reading(7.0, {zone: 14_000_000}),
        "rested": Reading(8.0, {zone: 99_000_000}),
    }
    assert one._token_energy(readings) == Joules(package=2.0)
    plan.new_tokens = 1  # none after the first
    assert one._token_energy(readings) == Joules()


@pytest.mark.parametrize(
    ("seconds", "rounds", "asked"), [(0.0, 1, None), (1e9, 3, None), (0.0, 2, 2)]
)
def test_a_plain_run_starts_no_round_that_would_take_too_long(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    rounds: int,
    asked: int | None,
) -> None:
    monkeypatch.setattr(suite, "PLAIN_SECONDS", seconds)
    monkeypatch.setattr(
        runner, "InterleavedWorker", lambda command: InterleavedWorker(python("pass"))
    )
    found, reported = run(tmp_path / "r.json", rounds=asked, contexts=())
    assert found.engines[0].rounds == rounds
    assert any("no more rounds" in line for line in reported) == (seconds == 0 and not asked)


@pytest.mark.slow
def test_several_threads_kv_caches_and_bundles(tmp_path: Path, bundle: Any) -> None:
    both = bundle("head-8", kv_cache="int8")
    found, _ = run(
        tmp_path / "r.json", bundles=[both], kv_caches=("float32", "int8"), threads=(1, 2), rounds=1
    )
    entries = {(e.name, e.threads): e for e in found.engines}
    names = {f"{both.name}, {kind} KV" for kind in ("float32", "int8")}
    assert set(entries) == {(name, threads) for name in names for threads in (1, 2)}
    wide, narrow = (entries[f"{both.name}, {kind} KV", 1].kv_bytes for kind in ("float32", "int8"))
    assert wide == 4 * narrow > 0
    assert found.bandwidth == {1: [1e9], 2: [1e9, 1e9]}


@pytest.mark.slow
def test_only_what_a_run_made_is_removed(
    tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.Runner, "run", lambda self: self._convert(self.plan.targets[-1]))
    work, source = tmp_path / "r.work", checkpoint("head-8")
    work.mkdir()
    (work / "own.txt").write_text("kept")
    (work / "torch-float32").mkdir()

    def start(name: str, **changes: Any) -> None:
        asked = request(rounds=1, prefills=(8,), depths=(8,), contexts=(), **changes)
        suite.run(asked, tmp_path / name, None, resume=False, report=lambda text: None)

    start("r.json")  # converts nothing
    (tmp_path / "r.json").unlink()
    start("r.json", checkpoint=source, engines=("issun-int8",))
    assert {path.name for path in work.iterdir()} == {"own.txt", "torch-float32"}
    (tmp_path / "r.json").unlink()
    with pytest.raises(
        BenchError, match="torch-float32 exists and was not made by a benchmark: delete it"
    ):
        start("r.json", checkpoint=source, engines=("torch-float32",))
    start("other.json", checkpoint=source, engines=("issun-int8",))
    assert not (tmp_path / "other.work").exists()


@pytest.mark.parametrize("marks", [("whole",), ("begun", "whole")])  # the first of older runs
def test_a_conversion_that_is_partly_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: tuple[str, ...]
) -> None:
    target = Target("issun-int8", tmp_path / "made", engine="issun-int8")
    target.folder.mkdir()
    for mark in marks:
        (tmp_path / f"made.{mark}").touch()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", interrupted)
        target.remove()
    _, complete = target.marks
    assert not complete.exists()
    assert not target.is_foreign()
    target.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_engines_are_made_from_a_checkpoint(tmp_path: Path, checkpoint: Any) -> None:
    names = ("issun-int8", "issun-int4-kv8")
    work = tmp_path / "kept"
    source = checkpoint("head-8")
    asked = request(checkpoint=source, engines=names, rounds=1, prefills=(8,), depths=(8,))
    found = suite.run(asked, tmp_path / "r.json", work, resume=False, report=lambda text: None)
    assert [e.name for e in found.engines] == list(names)
    for entry in found.engines:
        assert entry.conversion is not None
        assert entry.conversion.seconds > 0
        assert entry.conversion.peak > 2**20
        assert entry.disk_bytes > 0
        assert "issun export" in entry.settings
    assert (work / "issun-int8" / "issun.json").exists()


@pytest.mark.slow
def test_the_order_differs_between_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Any
) -> None:
    monkeypatch.setattr(
        runner, "InterleavedWorker", lambda command: InterleavedWorker(python("pass"))
    )
    both = [bundle("head-8"), bundle("head-17")]
    _, reported = run(tmp_path / "r.json", bundles=both, rounds=8, contexts=())
    orders = {line.split(": ")[1] for line in reported if line.startswith("round")}
    names = [found.name for found in both]
    assert orders == {f"{', '.join(names)}, 1 threads", f"{', '.join(names[::-1])}, 1 threads"}


@pytest.mark.slow
def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption in the second round, the first is kept and not measured again."""
    real, calls = runner.run_interleaved, []

    def stopping(workers: list[InterleavedWorker], report: Any) -> None:
        calls.append(workers)

        def stop(test: str) -> None:
            if len(calls) == 3 and test == "cold-32":
                raise KeyboardInterrupt
            report(test)

        real(workers, stop)

    monkeypatch.setattr(runner, "run_interleaved", stopping)
    output = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt):
        run(output)
    kept = read_results(output).engines[0]
    assert (kept.rounds, len(kept.samples["prefill-32"])) == (1, 1)
    assert (len(kept.samples["load"]), len(kept.samples["prefill-8"])) == (2, 2)
    before = read_results(output).commit
    monkeypatch.setattr(suite, "commit", lambda: "later")
    found, reported = run(output, resume=True)
    (entry,) = found.engines
    assert found.commit == f"{before}, later".removeprefix(", ")
    assert entry.samples["prefill-32"][0] == kept.samples["prefill-32"][0]
    assert entry.samples["prefill-8"][:2] == kept.samples["prefill-8"]
    assert (entry.rounds, len(entry.samples["prefill-32"])) == (2, 2)
    assert reported[0] == "round 2 of 2: embedded, 1 threads"


def test_engines_that_fit_into_memory_are_interleaved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Any
) -> None:
    groups: list[int] = []
    monkeypatch.setattr(
        runner, "InterleavedWorker", lambda command: InterleavedWorker(python("pass"))
    )
    monkeypatch.setattr(
        runner, "run_interleaved", lambda workers, report: groups.append(len(workers))
    )
    both = [bundle("head-8"), bundle("head-17")]
    found, _ = run(tmp_path / "r.json", bundles=both, rounds=1, contexts=())
    assert groups == [1, 1, 2]  # first loads alone
    assert found.turn == TIME_SLICE


@pytest.mark.slow
def test_a_failure_is_recorded_and_the_others_continue(tmp_path: Path, bundle: Any) -> None:
    damaged, sound = tmp_path / "damaged", bundle("head-8")
    shutil.copytree(sound, damaged)
    data = damaged / "model.onnx.data"
    data.write_bytes(b"\xff" * data.stat().st_size)
    (damaged / "model.onnx").write_bytes(b"\xff" * (damaged / "model.onnx").stat().st_size)
    output = tmp_path / "r.json"
    found, reported = run(output, bundles=[damaged, sound], rounds=1, contexts=(20,))
    broken, whole = found.engines
    assert (broken.status, broken.samples, broken.memory) == ("failed", {}, {})
    assert "differs from the file that was exported" in broken.reason
    assert f"damaged: failed: {broken.reason}" in reported
    assert (whole.status, whole.rounds) == ("measured", 1)
    assert whole.memory
    shutil.copytree(sound, damaged, dirs_exist_ok=True)
    again, _ = run(output, resume=True, bundles=[damaged, sound], rounds=1, contexts=(20,))
    assert again.engines[0].status == "measured"
    assert again.engines[0].rounds == 1


def test_a_time_of_nothing_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that came while its process was being suspended takes no time, and may be rounded."""
    lines = ({"test": "decode-0", "seconds": [0.0, -1e-12]}, {"test": "turn", "seconds": []})
    printed = "; ".join(f"print({json.dumps(line)!r})" for line in lines)
    monkeypatch.setattr(
        runner, "InterleavedWorker", lambda command: InterleavedWorker(python(printed))
    )
    found, _ = run(tmp_path / "r.json", rounds=1, contexts=())
    assert found.engines[0].samples == {"decode-0": [1e-9] * 4}  # and the first load


def test_a_crash_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(runner, "InterleavedWorker", lambda command: InterleavedWorker(crash))
    found, reported = run(tmp_path / "r.json")
    (entry,) = found.engines
    assert (entry.status, entry.reason) == ("crashed", "killed by SIGSEGV")
    assert reported[-1] == "embedded: crashed: killed by SIGSEGV"


def test_an_engine_that_is_not_installed_is_skipped(
    tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "missing_packages", lambda kind: ["ctranslate2"])
    found, reported = run(
        tmp_path / "r.json", checkpoint=checkpoint("head-8"), engines=("issun-int8",)
    )
    assert (found.engines[0].status, found.engines[0].samples) == ("skipped", {})
    assert reported == ["read bandwidth, 1 threads", "issun int8: not installed: ctranslate2"]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("engine", "label"),
    [
        ("ctranslate2-int8", "CTranslate2 int8"),
        ("llama.cpp-q4_0", "llama.cpp Q4_0"),
        ("openvino-int8", "OpenVINO int8"),
        ("optimum-int8", "Optimum int8"),
    ],
)
def test_an_engine_that_lacks_the_family_is_skipped_with_its_name(
    engine: str, label: str, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "tiny", SHAPES["llama"]["tiny"])
    found, reported = run(tmp_path / "r.json", checkpoint=tmp_path / "tiny", engines=(engine,))
    reason = "supports gpt2, not llama"
    assert (found.engines[0].status, found.engines[0].reason) == ("skipped", reason)
    assert reported[-1] == f"{label}: {reason}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefills": (512,)}, "prefill is 512, it must be at most 511 to fit"),
        ({"depths": (508,)}, "decode is 508, it must be at most 507 to fit"),
        ({"contexts": (512,)}, "memory is 512, it must be at most 511 to fit"),
        ({"contexts": (4,)}, "memory is 4: a context must hold a prompt and 4 new tokens"),
        ({"new_tokens": 511}, "new-tokens is 511, it must be a whole number from 1 to 510"),
        ({"new_tokens": 511, "contexts": ()}, "new-tokens is 511"),
        ({"new_tokens": 510}, "decode is 32, it must be at most 1 to fit"),
        ({"seed": -1}, "seed is -1, it must be a whole number from 0 to"),
        ({"seed": 2**64}, "seed is"),
        ({"kv_caches": ("int4",)}, "kv_cache is 'int4'"),
        ({"checkpoint": EMBEDDED, "engines": ("gpu",)}, "engines is 'gpu', it must be one of"),
        ({"bundles": [EMBEDDED, EMBEDDED]}, "the same name"),
    ],
)
def test_invalid_requests_are_refused_before_any_work(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        run(tmp_path / "r.json", **changes)
    assert not (tmp_path / "r.json").exists()


@pytest.mark.slow
def test_results_are_never_overwritten_or_mixed(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    with pytest.raises(BenchError, match="no run to resume"):
        run(output, resume=True)
    run(output, rounds=1, contexts=(20,))
    before = output.read_bytes()
    with pytest.raises(BenchError, match="exists: resume it with --resume"):
        run(output)
    for changed in ({"seed": 4}, {"new_tokens": 5}):
        with pytest.raises(BenchError, match="another machine, model, seed or number of new"):
            run(output, resume=True, **changed)
    with pytest.raises(ParameterError, match="name a file"):
        run(tmp_path)
    assert output.read_bytes() == before


@pytest.fixture
def idle_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that measure nothing, so that a run takes no time."""
    monkeypatch.setattr(
        runner, "InterleavedWorker", lambda command: InterleavedWorker(python("pass"))
    )


@pytest.mark.usefixtures("idle_workers")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prefills": (8, 16, 32)}, "other values of --prefill, --decode or --turn: repeat"),
        ({"depths": (0,)}, "other values of --prefill"),
        ({"turn": True}, "other values of --prefill"),
    ],
)
def test_a_resumed_run_has_the_same_tests(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    output = tmp_path / "r.json"
    run(output, rounds=1, contexts=())
    before = output.read_bytes()
    with pytest.raises(BenchError, match=message):
        run(output, resume=True, contexts=(), **changed)
    assert output.read_bytes() == before
    found, _ = run(output, resume=True, rounds=2, contexts=(), prefills=(32, 8))
    assert found.engines[0].rounds == 2


@pytest.mark.usefixtures("idle_workers")
@pytest.mark.parametrize("by", ["bundle", "name", "checkpoint"])
def test_a_resumed_run_has_the_same_model(
    tmp_path: Path, bundle: Any, checkpoint: Any, by: str
) -> None:
    """Neither another bundle in the place of the first, nor one or a checkpoint elsewhere."""
    output, folder = tmp_path / "r.json", tmp_path / "model"
    shutil.copytree(bundle("head-8"), folder)
    found, _ = run(output, bundles=[folder], rounds=1, contexts=())
    found.engines[0].bundle = read_manifest(folder).bundle_id
    write_results(output, found)
    before = output.read_bytes()
    found, _ = run(output, bundles=[folder], rounds=2, contexts=(), resume=True)
    assert found.engines[0].rounds == 2
    output.write_bytes(before)
    changes: dict[str, Any] = {
        "bundle": {"bundles": [folder]},
        "name": {"bundles": [bundle("head-8")]},
        "checkpoint": {"checkpoint": checkpoint("head-8"), "engines": ("issun-int8",)},
    }
    if by == "bundle":
        shutil.rmtree(folder)
        shutil.copytree(bundle("head-8", kv_cache="int8"), folder)
    with pytest.raises(BenchError, match="was measured with another"):
        run(output, rounds=2, contexts=(), resume=True, **changes[by])
    assert output.read_bytes() == before


@pytest.mark.usefixtures("idle_workers")
def test_another_checkpoint_of_the_same_name_is_noticed(tmp_path: Path, checkpoint: Any) -> None:
    output, source = tmp_path / "r.json", checkpoint("head-8")
    changes: dict[str, Any] = {"checkpoint": source, "engines": ("issun-int8",), "contexts": ()}
    found, _ = run(output, rounds=1, **changes)
    found.engines[0].bundle = "0" * 32
    write_results(output, found)
    with pytest.raises(BenchError, match="issun int8 was measured with another model"):
        suite.run(request(**changes), output, None, resume=True, report=lambda text: None)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["r.json", "r.lock"])
def test_two_runs_cannot_write_to_the_same_file(tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    refused: list[str] = []

    def report(_: str) -> None:
        with pytest.raises(BenchError, match="Another run is writing to") as caught:
            run(output, resume=True)
        refused.append(str(caught.value))

    suite.run(request(rounds=1, contexts=()), output, None, resume=False, report=report)
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_worker_imports_no_engine() -> None:
    """Its imports count in every engine's memory."""
    code = "import sys, issun.benchmarks.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"onnxruntime", "torch", "sentencepiece", "matplotlib", "psutil", "rich"}


def test_every_engine_gets_the_same_ids() -> None:
    jobs = [
        Job(work="speed", engine=name, checkpoint="", folder="", vocab_size=100, seed=5)
        for name in ENGINES
    ]
    first, *others = [job.ids(50) for job in jobs]
    assert all(ids == first for ids in others)
    assert min(first) >= 7
    assert max(first) < 100
    assert first[:20] == jobs[0].ids(20)


def test_the_bandwidth_is_plausible(tmp_path: Path) -> None:
    found = read_bandwidth(2, Meter(tmp_path), Joules(), size=1 << 22, rounds=3)
    assert len(found.rates) == 3
    assert all(10**7 < rate < 10**13 for rate in found.rates)
    assert found.byte_energy == Joules()


def test_sizes_by_kind_of_test() -> None:
    from tests.benchmarks.test_results import engine

    measured = engine(samples={"cold-9": [1], "cold-100": [1], "decode-0": [1], "load": [1]})
    assert depths(measured, "cold") == [9, 100]
