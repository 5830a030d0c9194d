"""The chat page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.conftest import Running, embedded_server


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """One server with the default options for all tests of the page."""
    with embedded_server() as found:
        yield found


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    """The page in Japanese at the width of a laptop; a complaint on the console fails the test."""
    context = browser.new_context(locale="ja-JP", viewport={"width": 1100, "height": 800})
    context.set_default_timeout(15_000)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(server.url)
    yield opened
    context.close()
    assert complaints == []
