"""The download of the weights: stored in parts, resumed, and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.conftest import MakeSite, hosting

PART = 1000
CONTENT = bytes(i * i % 251 for i in range(4500))  # five parts, the last one shorter
WEIGHTS = {
    "path": "bundle/weights",
    "name": "weights",
    "size": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "part_size": PART,
    "parts": [
        hashlib.sha256(CONTENT[at : at + PART]).hexdigest() for at in range(0, len(CONTENT), PART)
    ],
}
LOAD = """async (weights) => {
  const site = new URL("./", location.href);
  const { cacheName, loadWeights } = await import(new URL("engine/weights.mjs", site).href);
  const reported = [];
  const held = async () => (await (await caches.open(cacheName(site))).keys()).length;
  try {
    const { bytes, stored } = await loadWeights(weights, site, (done) => reported.push(done));
    return { bytes: [...bytes], stored, reported, held: await held() };
  } catch ({ key }) {
    return { key, held: await held() };
  }
}"""


class Server:
    """Answers requests for the weights, and notes which ranges they ask for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.content = CONTENT
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        page.route("**/bundle/weights", self.answer)

    def answer(self, route: Any) -> None:
        wanted = route.request.headers.get("range")
        self.ranges.append(wanted)
        if wanted and self.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            route.fulfill(status=206, body=self.content[start:])
        else:
            route.fulfill(status=200, body=self.content)

    def load(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate(LOAD, WEIGHTS)
        return found


@pytest.fixture
def server(browser: Any, make_site: MakeSite) -> Iterator[Server]:
    site = make_site(None)
    with hosting(site) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}NOTICE.txt")
        yield Server(page)


def test_an_interrupted_download_is_resumed(server: Server) -> None:
    server.content = CONTENT[:2500]
    assert server.load() == {"key": "errorDownload", "held": 2}
    server.content = CONTENT
    found = server.load()
    assert bytes(found["bytes"]) == CONTENT
    assert (found["stored"], found["held"]) == (True, 5)
    assert server.ranges == [None, "bytes=2000-"]
    assert found["reported"][:2] == [1000, 2000]
    assert found["reported"][-1] == len(CONTENT)
    assert bytes(server.load()["bytes"]) == CONTENT
    assert len(server.ranges) == 2  # all of it was stored


def test_a_server_without_ranges(server: Server) -> None:
    server.content, server.knows_ranges = CONTENT[:1500], False
    assert server.load() == {"key": "errorDownload", "held": 1}
    server.content = CONTENT
    assert bytes(server.load()["bytes"]) == CONTENT


@pytest.mark.parametrize("content", [b"\1" + CONTENT[1:], CONTENT + b"\0"])
def test_another_content_is_refused(server: Server, content: bytes) -> None:
    server.content = content
    assert server.load()["key"] == "errorChanged"
