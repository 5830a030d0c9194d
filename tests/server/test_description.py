"""Requests that schemathesis makes up from the server's own description: 4xx, never 5xx."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.server.conftest import embedded_server

pytest.importorskip("schemathesis")


@pytest.mark.slow
def test_made_up_requests_never_break_the_server() -> None:
    with embedded_server(deadline=20.0) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *(
                "--checks",
                "not_a_server_error,content_type_conformance,response_schema_conformance",
            ),
            *("--max-examples", "40", "--seed", "1", "--phases", "fuzzing", "--no-color"),
            *("--request-timeout", "30"),
        ]
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, encoding="utf-8"
        )
        assert server.get("/health").json()["status"] == "ok"
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
