"""Bodies that a client sends from a file, as the editor has written it."""

from __future__ import annotations

import httpx
import pytest

from tests.server.conftest import Running

BODY = '{"prompt": "日本で一番高い山は?"}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_changes_nothing(server: Running, encoding: str) -> None:
    def tokens(raw: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return httpx.post(f"{server.url}/tokenize", content=raw, headers=headers, timeout=60)

    answer = tokens(BODY.encode(encoding))
    assert answer.status_code == 200
    assert answer.json() == tokens(BODY.encode()).json()
    assert answer.json()["count"] > 5
