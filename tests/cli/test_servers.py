"""`issun bench run --url`: its file, and what it says about servers that fail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from issun.benchmarks.errors import BenchError
from issun.benchmarks.locking import locked
from issun.cli.servers import measure_servers
from issun.runtime import ParameterError
from tests.benchmarks.test_servers import Fake, failing, plain, serving


def measure(url: str, output: Path) -> None:
    measure_servers(
        [url],
        model="named",
        timeout=10.0,
        concurrency=(1,),
        rounds=1,
        tokens=5,
        form="terminal",
        output=output,
    )


def test_two_runs_cannot_share_a_file(tmp_path: Path) -> None:
    """Neither at the same time nor one after the other; the second asks no server."""
    path, fake = tmp_path / "r.json", Fake(plain)
    with serving(fake) as url:
        with locked(path), pytest.raises(BenchError, match="Another run is writing to"):
            measure(url, path)
        assert (fake.paths, path.exists()) == ([], False)
        measure(url, path)
        kept, asked = path.read_bytes(), len(fake.paths)
        with pytest.raises(ParameterError, match=re.escape(f"{path} exists")):
            measure(url, path)
    assert (path.read_bytes(), len(fake.paths)) == (kept, asked)
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_without_a_complete_answer_has_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    message = "No answer was complete; the first error: the stream has a chunk that is not JSON"
    fake = Fake(failing("data: {nonsense\n\n"))
    with serving(fake) as url, pytest.raises(BenchError, match=message):
        measure(url, path)
    said = capsys.readouterr()
    assert f"{url}, 1 clients: 1 errors, the first: the stream has a chunk" in said.out
    assert said.err.endswith(f"All measurements are in {path}.\n")
    assert json.loads(path.read_bytes())["levels"][0]["errors"] == 1
