"""Who may ask, how much, how slowly: everything else gets the dialect's error object."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from issun.runtime import Model
from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.errors import ParameterError
from issun.server.app import count_slots
from issun.server.connections import make_protocol
from issun.server.errors import ServerError
from issun.server.options import ServerOptions
from tests.server.conftest import Running, embedded_server

QUESTION = {"messages": [{"role": "user", "content": "山は?"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"


def refused(found: httpx.Response, status: int) -> dict[str, Any]:
    assert found.status_code == status
    error: dict[str, Any] = found.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil.example"]
)
def test_another_name_is_refused(server: Running, host: str) -> None:
    refused(server.post(CHAT, QUESTION, headers={"Host": host}), 403)


def test_addresses_localhost_and_allowed_names_are_taken() -> None:
    with embedded_server(allowed_hosts=("Box.local",)) as server:
        for host in ("localhost:1", "127.0.0.1", "[::1]:8000", "192.168.1.5", "box.LOCAL:80"):
            assert server.get("/health", headers={"Host": host}).status_code == 200


def test_pages_of_other_sites_are_refused(server: Running) -> None:
    own = {"Origin": server.url}
    assert server.post(CHAT, QUESTION, headers=own).status_code == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://["):
        refused(server.post(CHAT, QUESTION, headers={"Origin": origin}), 403)
    refused(server.get("/v1/models", headers={"Sec-Fetch-Site": "cross-site"}), 403)
    assert "access-control-allow-origin" not in server.get("/health", headers=own).headers


def test_a_link_from_another_site_opens_the_page_and_nothing_else(server: Running) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    followed = link | {"Sec-Fetch-Dest": "document"}
    assert server.get("/", headers=followed).headers["content-type"].startswith("text/html")
    for path in ("/v1/models", "/health", "/metrics", "/page/main.js", "/openapi.json"):
        refused(server.get(path, headers=followed), 403)
    for path in ("/", CHAT):
        refused(server.post(path, QUESTION, headers=followed), 403)
    for place in ("iframe", "image", "script", "empty", "object"):
        refused(server.get("/", headers=link | {"Sec-Fetch-Dest": place}), 403)
    refused(server.get("/", headers=followed | {"Sec-Fetch-Mode": "cors"}), 403)
    refused(server.get("/", headers=followed | {"Host": "evil.example"}), 403)


def test_an_allowed_page_may_ask_from_a_browser() -> None:
    with embedded_server(allowed_origins=("https://app.example",)) as server:
        headers = {"Origin": "https://app.example"}
        found = server.post(CHAT, QUESTION, headers=headers)
        assert found.headers["access-control-allow-origin"] == "https://app.example"
        before = httpx.options(
            server.url + CHAT, headers=headers | {"Access-Control-Request-Method": "POST"}
        )
        assert before.status_code == 200


def test_a_key_is_asked_for() -> None:
    with embedded_server(api_key="ひみつ-secret") as server:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
            error = refused(server.post(CHAT, QUESTION, headers=header), 401)
            assert error["code"] == "invalid_api_key"
        key = {"Authorization": "Bearer ひみつ-secret".encode()}
        assert server.post(CHAT, QUESTION, headers=key).status_code == 200
        assert server.get("/metrics").status_code == 401
        assert server.get("/health").status_code == 200
        assert server.get("/").status_code == 200


def test_slots_are_as_many_as_the_memory_holds(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(embedded.decoder, IssunDecoder)
    size = embedded.decoder.slot_bytes
    assert size == 2 * 7 * 8 * 32 * (512 + 128) * 4
    assert count_slots(embedded, ServerOptions(kv_memory=3 * size)) == 3
    assert count_slots(embedded, ServerOptions(kv_memory=3 * size, slots=2)) == 2
    with pytest.raises(ServerError, match="4 slots of 9 MB do not fit into 28 MB"):
        count_slots(embedded, ServerOptions(kv_memory=3 * size, slots=4))
    with pytest.raises(ServerError, match="this computer has"):
        count_slots(embedded, ServerOptions(kv_memory=1 << 50))
    with pytest.raises(ServerError, match="1 slots"):
        count_slots(embedded, ServerOptions(kv_memory=size - 1))
    for free, slots in ((10**12, 16), (4 * 5 * size, 5), (0, 1)):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free, total=free)
        )
        assert count_slots(embedded, ServerOptions()) == slots
    with pytest.raises(ServerError, match="2 slots"):
        count_slots(embedded, ServerOptions(slots=2))  # nothing is free


def test_an_open_door_needs_a_key() -> None:
    with pytest.raises(ServerError, match="can be reached from other computers"):
        ServerOptions(host="0.0.0.0")  # noqa: S104
    assert ServerOptions(host="0.0.0.0", api_key="x").host  # noqa: S104
    with pytest.raises(ServerError, match="API key is empty"):
        ServerOptions(api_key=" ")
    for options in ({"port": 70_000}, {"slots": 0}, {"deadline": 0.0}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            ServerOptions(**options)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, ""),
        (b'{"messages": "x"}', "Expected `array`"),
        (b'{"messages": []}', "length"),
        (b'{"messages": [{"role": "king", "content": "x"}]}', "king"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "utf-8"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 1e400}', ""),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', ""),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 3}', "<= 2"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 100}', "answers"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', "tools[0].function"),
        (b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"a": 1}}', "token id"),
        (b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"99999": 1}}', "range"),
        (b'{"messages": [{"role": "user", "content": "x"}], "stop": [""]}', "length"),
        (b'{"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}', "logprobs"),
        (b'{"messages": [{"role": "user", "content": "x"}], "regex": "("}', "constraint"),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "min_tokens": 6}',
            "min_tokens: it is 6",
        ),
        (
            b'{"messages": [{"role": "user", "content": '
            b'[{"type": "text", "text": "x", "image_url": {"url": "data:,"}}]}]}',
            "only text is supported",
        ),
    ],
)
def test_bad_bodies_are_told_apart(server: Running, body: bytes, part: str) -> None:
    found = httpx.post(server.url + CHAT, content=body, timeout=60)
    assert part.lower() in refused(found, 400)["message"].lower()


def test_a_hundred_thousand_prompts(server: Running) -> None:
    found = server.post("/v1/completions", {"prompt": [""] * 100_000, "n": 128})
    assert "12800000 answers" in refused(found, 400)["message"]


def test_ten_thousand_stop_strings(server: Running) -> None:
    refused(server.post(CHAT, QUESTION | {"stop": [str(n) for n in range(10_000)]}), 400)


def test_a_huge_body_is_refused_before_it_is_read(server: Running) -> None:
    big = {"messages": [{"role": "user", "content": "あ" * 400_000}]}
    refused(server.post(CHAT, big), 413)

    def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 500_000

    refused(httpx.post(server.url + CHAT, content=chunks(), timeout=60), 413)


def test_a_slow_body_is_given_up() -> None:
    with embedded_server(body_timeout=0.2) as server, connection(server) as line:
        line.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in line.recv(1000).split(b"\r\n")[0]


def test_a_connection_that_asks_nothing_is_closed() -> None:
    with embedded_server(body_timeout=0.2) as server:
        for said in (b"", b"GET /health HTTP/1.1\r\nHost: local"):
            with connection(server) as line:
                line.sendall(said)
                assert line.recv(1000) == b""


def test_a_connection_that_asks_again_stays() -> None:
    with embedded_server(body_timeout=0.4) as server, connection(server) as line:
        for _ in range(6):
            line.sendall(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in line.recv(4000).split(b"\r\n")[0]
            time.sleep(0.15)


def test_an_answer_that_nobody_reads_is_given_up_behind_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    protocol: Any = make_protocol(ServerOptions(body_timeout=1, deadline=2))
    monkeypatch.setattr(protocol, "_look_later", lambda self: done.append("later"))
    line = protocol.__new__(protocol)
    line.transport = SimpleNamespace(abort=lambda: done.append("abort"))
    line.cycle = unread = SimpleNamespace(response_complete=False)
    for _ in range(4):  # each a second behind the one before
        line._look(unread)
    assert done == ["later", "later", "later", "abort"]
    done.clear()
    line.cycle = SimpleNamespace(response_complete=False)  # another request
    line._look(unread)
    assert done == ["later"]


def test_the_connection_that_is_idle_for_longest_makes_room() -> None:
    with embedded_server(max_connections=2) as server, connection(server) as idle:
        kept_alive = HTTPConnection(server.url.removeprefix("http://"), timeout=20)
        for _ in range(2):
            kept_alive.request("GET", "/health")
            assert kept_alive.getresponse().read().startswith(b'{"status":"ok"')
            assert server.get("/health").status_code == 200
        assert idle.recv(1) == b""  # closed
        kept_alive.close()


def test_many_idle_connections_block_nobody() -> None:
    with embedded_server(max_connections=20) as server, ExitStack() as opened:
        for _ in range(60):
            opened.enter_context(connection(server))
        for _ in range(5):
            assert server.get("/health").status_code == 200


def test_connections_with_a_request_make_no_room() -> None:
    with embedded_server(max_connections=1) as server:
        with connection(server) as asking:
            asking.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n".encode())
            asking.sendall(b"Content-Length: 10\r\n\r\n{")
            time.sleep(0.2)
            refused(server.get("/health"), 503)
        time.sleep(0.1)
        assert server.get("/health").status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_without_files_to_open_the_server_goes_on_and_logs_little(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = f"ulimit -n 48; exec '{sys.executable}' -P -m issun serve --port 0 --threads 1"
    with (
        log.open("wb") as errors,
        subprocess.Popen(["sh", "-c", command], stderr=errors) as process,
    ):
        try:
            address = address_in(log)
            host, port = address.removeprefix("http://").split(":")
            with ExitStack() as opened:
                for _ in range(120):
                    with suppress(OSError):
                        opened.enter_context(socket.create_connection((host, int(port)), timeout=1))
                time.sleep(3)
                assert httpx.get(f"{address}/health", timeout=20).status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    text = log.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert len(text.splitlines()) < 10


def address_in(log: Path) -> str:
    for _ in range(300):
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8")):
            return found[0]
        time.sleep(0.1)
    pytest.fail("the server has not said where it is")


def connection(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_a_body_with_two_ends_is_refused_and_the_connection_closed(server: Running) -> None:
    hidden = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    lengths = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (
        5 + len(hidden)
    )
    with connection(server) as opened:
        opened.sendall(b"POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\n" + lengths + hidden)
        answer = b"".join(iter(lambda: opened.recv(1 << 16), b""))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_addresses_and_methods(server: Running) -> None:
    refused(server.get("/nothing"), 404)
    refused(server.get("/page/../main.py"), 404)
    refused(server.get("/page/..%2fapp.py"), 404)
    refused(server.get(CHAT), 405)
    refused(server.get("/v1/models/other"), 404)


def test_every_answer_forbids_what_is_from_elsewhere(server: Running) -> None:
    for path in ("/", "/health", "/nothing"):
        headers = server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_the_description_names_every_address(server: Running) -> None:
    found = json.loads(server.get("/openapi.json").text)
    assert found["openapi"].startswith("3.1")
    assert CHAT in found["paths"]
    assert "ChatRequest" in found["components"]["schemas"]
