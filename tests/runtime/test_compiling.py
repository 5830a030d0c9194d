"""Schemas and patterns compile within limits of time and memory, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from issun.runtime import Model
from issun.runtime.constraint import compiling, pool
from issun.runtime.errors import BusyError, CompilerBusyError, ParameterError
from tests.needs import posix

SLOW: dict[str, dict[str, Any]] = {
    "a power of two": {"type": "number", "multipleOf": 2147483648},
    "the same as an integer": {"type": "integer", "multipleOf": 2147483648},
    "a smaller one": {"type": "integer", "multipleOf": 1 << 27},
    "two primes": {"allOf": [{"type": "integer", "multipleOf": n} for n in (1009, 2003)]},
    "in a tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer", "multipleOf": 1 << 31}],
        "minItems": 1,
        "maxItems": 1,
    },
    "in an object": {
        "type": "object",
        "properties": {"a": {"type": "number", "multipleOf": 1 << 30}},
        "required": ["a"],
    },
    "patterns": {
        "allOf": [{"type": "string", "pattern": f"^(a|b)*a(a|b){{{n}}}$"} for n in range(25)]
    },
}
QUICK = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture
def model() -> Iterator[Model]:
    with Model.load(threads=1) as found:
        yield found


def children(process: int | None = None) -> list[psutil.Process]:
    """Return the processes that compile grammars, without those that have ended."""
    return [child for child in psutil.Process(process).children(recursive=True) if compiles(child)]


def compiles(process: psutil.Process) -> bool:
    try:
        return "child.py" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # ended, perhaps just now
        return False


def until(true: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.sampled
@pytest.mark.parametrize("kind", SLOW)
def test_what_takes_too_long_is_refused_and_cached(
    model: Model, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(pool, "MAX_SECONDS", 1.0)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ParameterError, match="takes more than 1 s to compile"):
        model.constraints.json_schema(SLOW[kind])
    assert psutil.Process().memory_info().rss < before + (100 << 20)
    began = time.monotonic()
    with pytest.raises(ParameterError, match="takes more than 1 s to compile"):
        model.constraints.json_schema(SLOW[kind])
    assert time.monotonic() < began + 0.5
    assert model.constraints.json_schema(QUICK).accepts(model.tokenizer.encode('{"a":1}'))


def test_memory_is_limited(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "child.py"
    text = pool._PROGRAM.read_text(encoding="utf-8")
    assert "MAX_BYTES = 1 << 30" in text
    program.write_text(text.replace("MAX_BYTES = 1 << 30", "MAX_BYTES = 1 << 26"))
    monkeypatch.setattr(pool, "_PROGRAM", program)
    monkeypatch.setattr(pool, "MAX_SECONDS", 30.0)
    with pytest.raises(ParameterError, match="MB of memory to compile"):
        model.constraints.json_schema(SLOW["a power of two"])
    assert model.constraints.json_schema(QUICK)


def test_one_process_serves_consecutive_requests(model: Model) -> None:
    before = set(children())  # excludes those of other tests' models
    for n in range(4):
        model.constraints.choices([f"{n}"])
    (child,) = set(children()) - before
    model.constraints.regex("[0-9]{7}")
    assert set(children()) - before == {child}
    model.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_process_that_was_ended_between_trials_is_replaced(model: Model) -> None:
    before = set(children())  # a browser and a server of other tests may run too
    assert model.constraints.regex("[0-9]{2}")
    (child,) = set(children()) - before
    child.kill()
    child.wait(10)
    assert model.constraints.regex("[0-9]{3}")  # not mistaken for running out of memory


def test_two_processes_work_and_a_limited_number_of_callers_wait(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "MAX_WAITING", 5)
    constraints, found = model.constraints, list[type[Exception]]()

    def ask(number: int) -> None:
        try:
            constraints.json_schema({"type": "integer", "multipleOf": 1 << 31, "minimum": -number})
        except (ParameterError, BusyError) as error:
            found.append(type(error))

    before = set(children())
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(9)]
    for thread in threads:
        thread.start()
    until(lambda: found == [CompilerBusyError] * 4)
    assert len(set(children()) - before) == 2
    constraints.close()
    for thread in threads:
        thread.join(2)
        assert not thread.is_alive()
    assert found == [CompilerBusyError] * 4 + [BusyError] * 5
    with pytest.raises(BusyError, match="closed"):
        constraints.choices(["山"])


def test_equal_schemas_are_compiled_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[list[str]]()
    try_grammars = pool.Child.try_grammars

    def counted(self: pool.Child, table: str, grammars: list[str]) -> Any:
        tried.append(grammars)
        return try_grammars(self, table, grammars)

    monkeypatch.setattr(pool.Child, "try_grammars", counted)
    constraints = model.constraints
    threads = [threading.Thread(target=constraints.json_schema, args=(QUICK,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == 1


ASKING = """
import sys
from issun.runtime import Model
model = Model.load(threads=1)
model.constraints.choices(["a"])
print("ready", flush=True)
model.constraints.json_schema({"type": "number", "multipleOf": 2147483648})
"""


@pytest.mark.sampled
@posix
@pytest.mark.parametrize("way", ["as it is", "by the pipe alone"])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_no_process_outlives_its_parent(tmp_path: Path, way: str, name: str) -> None:
    program = pool._PROGRAM.read_text(encoding="utf-8")
    asking = ASKING
    if way != "as it is":
        (tmp_path / "child.py").write_text(program.replace("prctl(1, ", "prctl(0, "))
        asking = f"""
from pathlib import Path
from issun.runtime.constraint import pool
pool._PROGRAM = Path({str(tmp_path / "child.py")!r})
{ASKING}"""
    with subprocess.Popen(
        [sys.executable, "-c", asking], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # during the trial
        (child,) = children(process.pid)
        process.send_signal(getattr(signal, name))
        process.wait(5)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_compiles_for_itself(model: Model) -> None:
    model.constraints.choices(["a"])
    script = os.fork()
    if not script:
        signal.alarm(20)
        try:
            ok = model.constraints.choices(["b"]).accepts(model.tokenizer.encode("b"))
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)
    assert os.waitpid(script, 0)[1] == 0
    assert model.constraints.choices(["c"])
