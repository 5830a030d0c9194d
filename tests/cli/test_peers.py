"""`issun bench fidelity --peers`: the table, with engines that are not what they are called."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks import peers, workers
from issun.benchmarks.distances import read_comparison
from issun.benchmarks.divergence import mean_kl
from issun.benchmarks.engines.registry import PEERS, engine_class
from issun.benchmarks.worker import Job
from issun.cli import fidelity
from issun.runtime import Model
from issun.runtime.demonstration import EMBEDDED
from tests.cli.conftest import issun

Bundles = Callable[..., Path]

# A worker that copies the reference's logits, or ends as CTranslate2 or OpenVINO int4.
FAKE = """
import json, os, pathlib, shutil, signal, sys
job = json.loads(sys.argv[1])
folder, scores = pathlib.Path(job["folder"]), pathlib.Path(job["scores"])
if job["work"] == "convert":
    folder.mkdir()
    (folder / "openvino_model.xml").write_bytes(b"x" * 250_000)
    (folder / "openvino_model.bin").write_bytes(b"x" * 1_000_000)
elif job["engine"] == "ctranslate2-int8":
    os.kill(os.getpid(), signal.SIGKILL)
elif job["engine"] == "openvino-int4":
    raise ValueError("no such group")
else:
    assert sum(map(len, json.loads((scores / "windows.json").read_text()))) == POSITIONS
    print(json.dumps({"about": {"settings": "as it is", "types": "INT8 3"}}))
    shutil.copy(scores / "float32", scores / "logits")
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "文章.txt"
    path.write_text("山と川と海の話をしましょう。\n" * 9, encoding="utf-8")
    return path


@pytest.fixture
def models(bundle: Bundles, checkpoint: Callable[[str], Path], tmp_path: Path) -> tuple[Path, Path]:
    """A float32 bundle called `exact`, and its checkpoint."""
    return shutil.copytree(bundle("unscaled", "float32"), tmp_path / "exact"), checkpoint(
        "unscaled"
    )


def _run(bundles: list[Path], against: Path, text: Path, work: Path, **options: Any) -> None:
    work.mkdir(exist_ok=True)
    fidelity.run(bundles=bundles, against=against, text=[text], peers=True, work=work, **options)
    assert list(work.iterdir()) == []


@pytest.mark.slow
def test_bundles_and_other_engines_in_one_table(
    models: tuple[Path, Path],
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exact, source = models
    with Model.load(exact) as model:
        count = len(model.encode(text.read_text(encoding="utf-8")))
    real = peers.worker_command

    def command(job: Job) -> list[str]:
        if job.engine == "bundle":
            return real(job)
        script = FAKE.replace("POSITIONS", str(count))
        return [sys.executable, "-c", script, json.dumps(_fields(job))]

    monkeypatch.setattr(peers, "worker_command", command)
    absent = {engine_class("llama.cpp-q4_0"): ["gguf"]}
    monkeypatch.setattr(workers, "missing_packages", lambda kind: absent.get(kind, []))
    output = tmp_path / "found.json"
    engines = "openvino-int8, ctranslate2-int8,llama.cpp-q4_0,openvino-int4"
    _run(
        *([exact], source, text, tmp_path / "work"),
        **{"engines": engines, "window": 64, "output": output},
    )
    size = sum(path.stat().st_size for path in exact.glob("model.onnx*")) / 1e6
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "KL divergence from float32 in nats, and share of equal most likely tokens",
        "windows of 64 tokens; importance matrices and other fits: the text in the package",
        f"text 1: 文章.txt ({count:,} tokens)",
        "",
        "                       MB        1",
        f"exact           {size:9.2f}   0.00000 100.00%",
        "OpenVINO int8        1.25   0.00000 100.00%  INT8 3",
        "CTranslate2 int8  crashed: killed by SIGKILL",
        "llama.cpp Q4_0    skipped: not installed: gguf",
        "OpenVINO int4     failed: ValueError: no such group",
    ]
    assert shown.err.splitlines() == [
        *("float32", "exact", "OpenVINO int8", "CTranslate2 int8"),
        *("CTranslate2 int8: crashed: killed by SIGKILL", "llama.cpp Q4_0"),
        *("llama.cpp Q4_0: skipped: not installed: gguf", "OpenVINO int4"),
        "OpenVINO int4: failed: ValueError: no such group",
        f"The results are in {output}.",
    ]
    stored = read_comparison(output)
    assert [point.settings for point in stored.points][1] == "as it is"
    assert (stored.checkpoint, stored.window) == (source.name, 64)


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__struct_fields__}


@pytest.mark.slow
def test_a_bundle_has_the_divergence_of_full_matrices(
    bundle: Bundles,
    checkpoint: Callable[[str], Path],
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rounded = bundle("unscaled", "int4")
    _run(
        *([rounded], checkpoint("unscaled"), text, tmp_path / "work"),
        **{"engines": "none", "window": 50, "as_json": True},
    )
    (point,) = json.loads(capsys.readouterr().out)["points"]
    with Model.load(bundle("unscaled", "float32")) as one, Model.load(rounded) as other:
        ids = one.encode(text.read_text(encoding="utf-8"))
        assert len(ids) > 100
        windows = [ids[start : start + 50] for start in range(0, len(ids), 50)]
        kl = [mean_kl(one.score(window), other.score(window)) for window in windows]
        weights = [len(window) for window in windows]
    expected = sum(map(float.__mul__, kl, map(float, weights))) / len(ids)
    assert point["distances"][0]["kl"] == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-4


@pytest.mark.slow
def test_what_is_refused(
    bundle: Bundles, checkpoint: Callable[[str], Path], text: Path, tmp_path: Path
) -> None:
    whole, source = bundle("unscaled", "float32"), checkpoint("unscaled")

    def refused(*options: object, against: Path = source) -> str:
        asked = ["bench", "fidelity", whole, "--against", against, "--text", text]
        result = issun(*asked, *map(str, options))
        assert (result.code, result.out) == (2, "")
        return result.err.removeprefix("error: ")

    needs = "--peers needs the checkpoint: give it with --against.\n"
    assert refused("--peers", against=whole) == needs
    assert refused(whole) == "Several bundles or texts need --peers.\n"
    assert refused("--text", text) == "Several bundles or texts need --peers.\n"
    assert refused("--peers", "--window", 0).startswith("window is 0, it must be")
    assert refused("--peers", "--engines", "a,b").startswith("engines is 'a', it must be one of")
    missing = tmp_path / "no" / "f.json"
    assert "its folder does not exist" in refused("--peers", "--output", missing)
    assert "cannot be read" in refused("--peers", "--speeds", tmp_path / "none.json")
    assert "have the same name" in refused("--peers", "--engines", "none", whole)
    asked = ["bench", "fidelity", EMBEDDED, "--against", source, "--peers"]
    assert "different vocabularies" in issun(*asked, "--engines", "none").err


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engines", "none"), "Only --peers uses --engines."),
        (("--window", "512", "-o", "f.json"), "Only --peers uses --window, --output."),
        (("--calibrate", "a.txt"), "Only --peers uses --calibrate."),
        (("--speeds", "speeds.json"), "Only --peers uses --speeds."),
        (("-o", "found.json"), "Only --peers uses --output."),
        (("--peers", "--kv-cache", "int8"), "--kv-cache cannot be combined with --peers."),
        (("--peers", "--answers", "20"), "--answers cannot be combined with --peers."),
        (("--peers", "--by-layer"), "--by-layer cannot be combined with --peers."),
    ],
)
def test_options_of_the_other_comparison_are_refused(
    options: tuple[str, ...], message: str, bundle: Bundles, checkpoint: Callable[[str], Path]
) -> None:
    whole, source = bundle("unscaled", "float32"), checkpoint("unscaled")
    result = issun("bench", "fidelity", whole, "--against", source, *options)
    assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")


def test_all_peers_can_be_named() -> None:
    assert {engine_class(name).label for name in PEERS} >= {"llama.cpp Q5_K_M, imatrix"}
    assert len({engine_class(name).label for name in PEERS}) == len(PEERS)
    assert os.sep not in "".join(PEERS)
