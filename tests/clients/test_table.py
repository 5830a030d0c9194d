"""What the clients' runner makes of its scripts' reports, and that its page is what it recorded."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients import environments, run, table
from tests.needs import posix


def line(column: str, *, ok: bool, name: str = "", limit: str | None = None) -> str:
    return json.dumps(
        {"column": column, "name": name, "ok": ok, "limit": limit, "found": "…", "seconds": 0.1},
        ensure_ascii=False,
    )


VERSION = json.dumps({"version": "1.2"})
BEFORE = [
    VERSION,
    line("chat", ok=True),
    line("JSON schema", ok=True, name="parse"),
    line("JSON schema", ok=False, name="stream"),
    line("tool auto", ok=False, limit="it does not decide"),
    "a line of the client's own",
]


def read(lines: Sequence[str]) -> table.Client:
    return table.Client.read("some", "\n".join(lines))


def test_a_report_is_read_and_counted() -> None:
    client = read(BEFORE)
    assert client.version == "1.2"
    assert client.summary() == "2 of 4 work, 1 cannot"
    cells = ("chat", "JSON schema", "tool auto", "responses")
    assert [client.cell(column) for column in cells] == ["✓", "✗ 1/2", "–", ""]


def test_only_what_worked_and_no_longer_does_is_worse() -> None:
    now = read([VERSION, line("chat", ok=True), line("JSON schema", ok=False, name="parse")])
    assert read(BEFORE).missing_in(now) == ["some: JSON schema, parse"]
    assert now.missing_in(read(BEFORE)) == []


def test_a_script_that_breaks_off_loses_what_it_did_not_try() -> None:
    now = table.Client.broken("some", "ImportError: …", read(BEFORE[:2]))
    assert read(BEFORE).missing_in(now) == ["some: JSON schema, parse"]
    assert now.cell("chat") == "✓"
    assert [feature.label for feature in now.failed()] == ["runs to its end"]


def test_the_page_says_why_something_cannot_work_and_names_no_address() -> None:
    failing = line("chat", ok=False).replace("…", "refused at http://127.0.0.1:4711/v1 today")
    page = table.page([read([*BEFORE, failing])])
    assert "- Cannot: tool auto: it does not decide" in page
    assert "2 of 5 features work, 1 cannot work here, 2 fail" in page
    assert "refused at today" in page


def test_the_page_is_made_from_what_is_recorded() -> None:
    recorded = table.load()
    assert sorted(recorded) == [environments.name_of(s) for s in environments.scripts([])]
    ordered = [recorded[name] for name in sorted(recorded)]
    assert table.PAGE.read_text(encoding="utf-8") == table.page(ordered)


def test_every_column_of_a_feature_is_one_of_the_tables() -> None:
    known = {*table.TEXT, *table.STRUCTURED}
    found = {f.column for client in table.load().values() for f in client.features}
    assert found <= known


@pytest.mark.parametrize(("works", "code"), [(True, 0), (False, 1)])
@posix
def test_the_runner_fails_where_a_recorded_feature_does(
    works: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "try_some.py"
    script.write_text(f"print({VERSION!r})\nprint({line('chat', ok=works)!r})", encoding="utf-8")
    server = tmp_path / "server.py"
    server.write_text(SERVER, encoding="utf-8")
    starter = tmp_path / "issun"
    python = shlex.quote(sys.executable)
    starter.write_text(f"#!/bin/sh\nexec {python} {shlex.quote(str(server))}\n", encoding="utf-8")
    starter.chmod(0o700)
    monkeypatch.setattr(environments, "scripts", lambda names: [script])
    monkeypatch.setattr(environments, "CACHE", tmp_path)
    monkeypatch.setattr(
        environments, "command", lambda path, *, newest: ([sys.executable, str(path)], {})
    )
    monkeypatch.setattr(table, "load", lambda: {"some": read(BEFORE[:2])})
    monkeypatch.setattr(sys, "argv", ["run", "some", "--issun", str(starter)])
    assert run.main() == code


SERVER = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "small"}]}).encode())

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(f"It answers at http://127.0.0.1:{server.server_port} now.", file=sys.stderr, flush=True)
server.serve_forever()
"""
