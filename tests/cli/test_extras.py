"""Every entry point without the extras: it works, or it names in one line what to install."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement

from issun.cli.extras import EXTRAS, missing_extra
from issun.cli.main import make_app
from issun.runtime.demonstration import EMBEDDED
from tests.cli.bare import hidden_modules, plain_distributions, run_bare
from tests.kit.wheelhouse import make_wheelhouse, pip_settings

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / "build" / "web" / "node_modules" / "onnxruntime-web" / "dist"
RECORDS = '{"instruction": "空は?", "output": "青い。"}\n'
EMBED = str(EMBEDDED)

# Each subcommand: arguments with which it works where nothing is missing, and the extra it needs.
COMMANDS: dict[str, list[tuple[list[str], str | None]]] = {
    "export": [(["CHECKPOINT", "-o", "new"], "export")],
    "adapter": [([EMBED, "ADAPTER", "-o", "new"], "export")],
    "finetune": [(["CHECKPOINT", "--data", "records.jsonl", "-o", "new"], "train")],
    "chat": [([], None)],
    "generate": [
        (["空は?"], None),
        (["空は?", "--regex", "[あ-ん]+"], "server"),
        (["空は?", "--choices", "青", "--choices", "赤"], "server"),
        (["空は?", "--json-schema", "schema.json"], "server"),
    ],
    "serve": [(["--port", "0"], "server")],
    "batch": [(["records.jsonl", "-o", "new.jsonl"], "server")],
    "evaluate": [(["--samples", "1", "--max-new-tokens", "2"], None)],
    "score": [(["--prompt", "空は", "--continuation", "青い"], None)],
    "bench run": [(["--rounds", "1"], "bench")],
    "bench fidelity": [([EMBED, "--against", "CHECKPOINT", "--no-keep"], "export")],
    "bench report": [
        (["RESULTS", "-o", "report"], None),
        (["RESULTS", "--table"], None),
    ],
    "bench fit": [(["--ram", "2GB"], None)],
    "cache": [(["list"], None)],
    "kit": [(["-o", "new", "--wheel", "WHEELS/issun-1.0-py3-none-any.whl"], None)],
    "inspect": [([], None)],
    "web": [(["-o", "new", "--runtime", "RUNTIME"], None)],
}

# Each module that `python -m` runs, likewise.
MODULES: dict[str, tuple[list[str], str | None]] = {
    "issun": (["--version"], None),
    "issun.benchmarks.batch": (
        [EMBED, "--rounds", "1", "--tokens", "2", "--rows", "2"],
        "server",
    ),
    "issun.benchmarks.browser": (["--help"], None),
    "issun.benchmarks.calibration_texts": (["CHECKPOINT", "--measure", "records.jsonl"], "export"),
    "issun.benchmarks.demo": ([], None),
    "issun.benchmarks.drafts": (["--help"], None),
    "issun.benchmarks.families": (["new"], "export"),
    "issun.benchmarks.kinds": ([], "export"),
    "issun.benchmarks.limited": (["CHECKPOINT"], "export"),
    "issun.benchmarks.make_checkpoint": (["new", "--size", "tiny"], "export"),
    "issun.benchmarks.memory": (["--", "true"], None),
    "issun.benchmarks.precisions": (["CHECKPOINT", "--text", "records.jsonl"], "export"),
    "issun.benchmarks.publish": (["--help"], None),
    "issun.benchmarks.rounding": ([EMBED, "--rows", "2", "--tokens", "2"], "server"),
    "issun.benchmarks.sampling": ([EMBED, "--steps", "2"], None),
    "issun.benchmarks.start": ([EMBED, "--rounds", "1"], None),
    "issun.benchmarks.structured": ([], "server"),
    "issun.benchmarks.together": (
        [EMBED, "--rounds", "1", "--tokens", "2", "--prompts", "2"],
        None,
    ),
    "issun.benchmarks.worker_memory": ([EMBED, "--workers", "1", "--tokens", "2"], "server"),
    "issun.cli.main": (["--version"], None),
    "issun.export.probes": ([], "export"),
    "issun.training.embedded.build": (["new"], "export"),
    "issun.training.embedded.evaluation": (["--samples", "1"], "export"),
    "issun.training.embedded.everyday": (["--help"], None),
    "issun.training.convert": (["records.jsonl", "new.txt"], "export"),
}
INTERNAL = {  # started by issun itself alone
    "issun.benchmarks.worker",
    "issun.kit.support.start",
    "issun.runtime.constraint.child",
    "issun.runtime.text.jinja_child",
}


def subcommands(group: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from subcommands(command, (*before, name))
        else:
            yield " ".join((*before, name))


def runnable_modules() -> Iterator[str]:
    for package in (
        ".",
        "benchmarks",
        "cli",
        "cluster",
        "export",
        "kit",
        "runtime",
        "server",
        "training",
        "web",
    ):
        paths = ROOT.glob("*.py") if package == "." else (ROOT / package).rglob("*.py")
        for path in paths:
            if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(("issun", *parts)).removesuffix(".__main__")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheelhouse(tmp_path_factory.mktemp("kit") / "wheels").parent


@pytest.fixture
def folder(tmp_path: Path, fuji: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in pip_settings(wheels).items():  # no index is asked
        monkeypatch.setenv(name, value)
    (tmp_path / "WHEELS").symlink_to(wheels)
    if RUNTIME.is_dir():
        (tmp_path / "RUNTIME").symlink_to(RUNTIME)
    (tmp_path / "records.jsonl").write_text(RECORDS, encoding="utf-8")
    (tmp_path / "schema.json").write_text('{"type": "integer"}', encoding="utf-8")
    shutil.copytree(fuji.parent / "checkpoint", tmp_path / "CHECKPOINT")
    shutil.copy(ROOT / "benchmarks" / "results" / "1b.json.gz", tmp_path / "RESULTS")
    return tmp_path


def check(folder: Path, arguments: list[str], extra: str | None) -> None:
    before = {path.name for path in folder.iterdir()} | {"site"}
    result = run_bare(folder, "-m", *arguments, stdin="空は?\n")
    assert "Traceback" not in result.err, result.err
    if extra is None:
        assert result.code == 0, result.err
        return
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, result.err
    assert f'pip install "issun[{extra}]"' in result.err
    assert {path.name for path in folder.iterdir()} == before


def test_all_entry_points_are_known() -> None:
    assert set(subcommands(typer.main.get_command(make_app()))) == set(COMMANDS)
    assert set(runnable_modules()) == set(MODULES) | INTERNAL


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("command", "arguments", "extra"),
    [(name, *case) for name, cases in COMMANDS.items() for case in cases],
)
def test_subcommand_in_a_plain_installation(
    folder: Path, command: str, arguments: list[str], extra: str | None
) -> None:
    if "RUNTIME" in arguments and not RUNTIME.is_dir():
        pytest.skip("there is no onnxruntime-web in build/web")
    check(folder, ["issun", *command.split(), *arguments], extra)


@pytest.mark.sampled
@pytest.mark.parametrize("module", MODULES)
def test_module_in_a_plain_installation(folder: Path, module: str) -> None:
    arguments, extra = MODULES[module]
    check(folder, [module, *arguments], extra)


def test_the_plain_installation_is_one() -> None:
    assert {"numpy", "onnxruntime", "typer", "prompt-toolkit"} <= plain_distributions()
    installed = hidden_modules() & set(EXTRAS)
    assert {"ml_dtypes", "onnx_ir", "safetensors", "cpuinfo", "starlette"} <= installed
    assert not hidden_modules() & {"numpy", "issun", "typer", "rich", "google"}


def test_every_distribution_of_the_extras_has_its_extra() -> None:
    names = {
        "llama-cpp-python": "llama_cpp",
        "onnx-ir": "onnx_ir",
        "optimum-intel": "optimum",
        "optimum-onnx": "optimum",
        "prometheus-client": "prometheus_client",
        "py-cpuinfo": "cpuinfo",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        extra: {names.get(r.name, r.name) for r in map(Requirement, needed) if r.name != "issun"}
        for extra, needed in project["optional-dependencies"].items()
        if extra not in ("test", "clients", "dev", "docs", "package")
    }
    assert set(EXTRAS) == set().union(*extras.values())
    assert all(module in extras[extra] for module, extra in EXTRAS.items())


def test_another_missing_module_is_a_bug() -> None:
    assert missing_extra(ModuleNotFoundError("No module named 'nope'", name="nope")) is None
    found = missing_extra(ModuleNotFoundError("…", name="starlette.routing"))
    assert str(found) == 'starlette is not installed: pip install "issun[server]"'
