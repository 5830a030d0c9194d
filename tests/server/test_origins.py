"""Pages of other sites that are allowed, in the spellings that users and browsers have."""

from __future__ import annotations

import httpx
import pytest

from issun.server.errors import ServerError
from issun.server.options import ServerOptions
from issun.server.origins import origin_of
from tests.server.conftest import Running, embedded_server

QUESTION = {"messages": [{"role": "user", "content": "山は?"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"
ALLOWED = (
    "https://Chat.Example/",
    "app://obsidian.md",
    "http://localhost:3000/",
    "https://日本.example:443",
    "chrome-extension://abcdef",
    "file://",
)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://chat.example", "https://chat.example"),
        ("https://chat.example/", "https://chat.example"),
        ("HTTPS://Chat.Example:443", "https://chat.example"),
        ("http://chat.example:443", "http://chat.example:443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://日本.example", "https://xn--wgv71a.example"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("tauri://localhost", "tauri://localhost"),
        ("file:///", "file://"),
        ("chat.example", None),
        ("localhost:3000", None),
        ("https://chat.example/app", None),
        ("https://chat.example?x", None),
        ("https://user@chat.example", None),
        ("https://*.example", None),
        ("https://chat.example:port", None),
        ("http://[", None),
        ("https://", None),
        ("null", None),
        ("", None),
    ],
)
def test_an_origin_is_what_browsers_send(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("origin", "part"),
    [
        ("*", "name the sites"),
        ("null", "serve the page from an address"),
        ("chat.example", "give https://chat.example."),
        ("localhost:3000", "give https://localhost:3000."),
        ("https://chat.example/app", "give https://chat.example."),
        ("http://chat.example:8080/?x#y", "give http://chat.example:8080."),
        ("https://*.example", "give https://chat.example."),
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str, part: str) -> None:
    with pytest.raises(ServerError) as caught:
        ServerOptions(allowed_origins=("https://good.example", origin))
    assert part in str(caught.value)


@pytest.fixture(scope="module")
def open_server() -> Running:  # type: ignore[misc]
    with embedded_server(allowed_origins=ALLOWED, api_key="k", max_queue=1, slots=1) as found:
        yield found


def ask_before(server: Running, origin: str, **headers: str) -> httpx.Response:
    wanted = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.options(server.url + CHAT, headers=wanted | names, timeout=60)


@pytest.mark.parametrize(
    "origin",
    [
        "https://chat.example",
        "app://obsidian.md",
        "http://localhost:3000",
        "https://xn--wgv71a.example",
        "chrome-extension://abcdef",
        "file://",
    ],
)
def test_an_allowed_page_asks(open_server: Running, origin: str) -> None:
    before = ask_before(
        open_server,
        origin,
        Access_Control_Request_Headers="authorization, x-stainless-os",
        Access_Control_Request_Private_Network="true",
    )
    assert before.status_code == 200  # without a key: browsers send none
    assert before.headers["access-control-allow-origin"] == origin
    assert before.headers["access-control-allow-private-network"] == "true"
    assert before.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "POST" in before.headers["access-control-allow-methods"]
    headers = {"Origin": origin, "Authorization": "Bearer k", "Sec-Fetch-Site": "cross-site"}
    found = open_server.post(CHAT, QUESTION, headers=headers)
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] == origin
    assert "x-request-id" in found.headers["access-control-expose-headers"].lower()


def test_the_newer_name_of_the_same_is_answered(open_server: Running) -> None:
    found = ask_before(
        open_server, "https://chat.example", Access_Control_Request_Local_Network="true"
    )
    assert found.headers["access-control-allow-local-network"] == "true"
    assert "access-control-allow-private-network" not in found.headers
    plain = ask_before(open_server, "https://chat.example")
    assert "access-control-allow-local-network" not in plain.headers


@pytest.mark.parametrize(
    "origin", ["https://other.example", "http://chat.example", "https://chat.example:8443", "null"]
)
def test_another_page_does_not(open_server: Running, origin: str) -> None:
    before = ask_before(open_server, origin, Access_Control_Request_Private_Network="true")
    assert before.status_code >= 400
    assert "access-control-allow-origin" not in before.headers
    headers = {"Origin": origin, "Authorization": "Bearer k"}
    found = open_server.post(CHAT, QUESTION, headers=headers)
    assert found.status_code == 403
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", CHAT, "wrong", 401),
        ("POST", CHAT, "k", 429),
        ("GET", CHAT, "k", 405),
        ("GET", "/nothing", "k", 404),
    ],
)
def test_a_page_can_read_why_it_was_refused(
    open_server: Running, method: str, path: str, key: str, status: int
) -> None:
    headers = {"Origin": "https://chat.example", "Authorization": f"Bearer {key}"}
    body = QUESTION | {"n": 9}  # more than one slot and a queue of one take
    found = httpx.request(method, open_server.url + path, json=body, headers=headers, timeout=60)
    assert found.status_code == status
    assert found.headers["access-control-allow-origin"] == "https://chat.example"
    assert found.headers["x-request-id"]
    assert found.json()["error"]["message"]
