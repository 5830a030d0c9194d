"""`--trust`: every command that opens a bundle can be told to run a foreign graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.runtime.manifest import sha256_of
from issun.runtime.weights.proto import parse_model
from tests.cli.conftest import Result, environment, issun

Bundles = Callable[..., Path]
REFUSED = "which issun does not export: it could read your files or run forever."
SMALL = (
    "--rounds",
    "1",
    "--prefill",
    "8",
    "--decode",
    "0",
    "--new-tokens",
    "2",
    "--memory",
    "none",
)


@pytest.fixture(scope="module")
def foreign(bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graph has an operator that does nothing and is not issun's."""
    target = tmp_path_factory.mktemp("foreign") / "bundle"
    shutil.copytree(bundle("unscaled", "float32"), target)
    graph = target / "model.onnx"
    model = parse_model(graph.read_bytes())
    node = model.graph.node.add(op_type="Identity", input=["input_ids"])
    node.MergeFromString(b"\x12\x06unused")  # its output
    graph.write_bytes(model.SerializeToString())
    manifest = json.loads((target / "issun.json").read_text(encoding="utf-8"))
    manifest["files"][graph.name] = {"size": graph.stat().st_size, "sha256": sha256_of(graph)}
    (target / "issun.json").write_text(json.dumps(manifest), encoding="utf-8")
    return target


def check(result: Result, *, trusted: bool) -> None:
    if trusted:
        assert result.code == 0, result.err
    else:
        assert result.code == 2
        assert REFUSED in result.err
        assert "--trust" in result.err
        assert len(result.err.splitlines()) == 1


@pytest.mark.sampled
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("command", ["chat", "generate", "evaluate", "fidelity"])
def test_a_foreign_graph_runs_only_with_trust(
    foreign: Path, bundle: Bundles, tmp_path: Path, command: str, trusted: bool
) -> None:
    option = ["--trust"] if trusted else []
    short = ["--max-new-tokens", "2"]
    if command == "chat":
        result = issun("chat", foreign, *short, *option, stdin="山は?\n")
    elif command == "generate":
        result = issun("generate", foreign, "山は?", *short, *option)
    elif command == "evaluate":
        result = issun("evaluate", foreign, "--samples", "1", "--json", "-", *short, *option)
        result = Result(result.code, result.out, result.err.replace("\r", ""))
    else:
        text = tmp_path / "text.txt"
        text.write_text("山と川と海の話をしましょう。\n" * 9, encoding="utf-8")
        against = ["--against", foreign if trusted else bundle("unscaled", "float32")]
        asked = ["--text", text, "--answers", "0", "--no-keep", *option]
        result = issun("bench", "fidelity", foreign, *against, *asked)
    check(result, trusted=trusted)


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [False, True])
def test_bench_hands_trust_to_its_workers(foreign: Path, tmp_path: Path, trusted: bool) -> None:
    output = tmp_path / "found.json"
    option = ["--trust"] if trusted else []
    result = issun("bench", foreign, *SMALL, "--no-turn", "--threads", "1", "-o", output, *option)
    (entry,) = json.loads(output.read_text(encoding="utf-8"))["engines"]
    assert entry["status"] == ("measured" if trusted else "failed"), result.err
    assert (REFUSED in entry["reason"]) is not trusted


@pytest.mark.parametrize("trusted", [False, True])
def test_serve(foreign: Path, trusted: bool) -> None:
    command = [sys.executable, "-P", "-m", "issun", "serve", str(foreign), "--port", "0"]
    with subprocess.Popen(
        [*command, *(["--trust"] if trusted else [])],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        process.wait(20)
    assert ("at http://127.0.0.1:" in line) is trusted, line
    assert (REFUSED in line) is not trusted


@pytest.mark.sampled
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("module", "options"),
    [("sampling", ["--steps", "2"]), ("start", ["--rounds", "1"]), ("together", [])],
)
def test_single_benchmarks(foreign: Path, module: str, options: list[str], trusted: bool) -> None:
    if module == "together":
        options = ["--rounds", "1", "--tokens", "2", "--prompts", "2"]
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", f"issun.benchmarks.{module}", str(foreign), *options),
            *(["--trust"] if trusted else []),
        ],
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=120,
        check=False,
    )
    assert (done.returncode == 0) is trusted, done.stderr
    assert (REFUSED in done.stderr) is not trusted


@pytest.mark.slow
def test_the_help_says_it_in_japanese() -> None:
    for command in (["chat"], ["generate"], ["serve"], ["evaluate"], ["bench", "run"]):
        text = issun(*command, "--help", LANG="ja_JP.UTF-8", COLUMNS="200").out
        assert "--trust" in text
        assert "信頼できるバンドル" in "".join(text.split()), command
