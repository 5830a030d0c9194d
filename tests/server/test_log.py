"""What the server logs: faults, and not what clients do."""

from __future__ import annotations

import logging

import pytest

from tests.server.conftest import Running


def test_a_client_that_has_left_is_no_fault(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio_logger = logging.getLogger("asyncio")
    asyncio_logger.warning("socket.send() raised exception.")
    asyncio_logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
