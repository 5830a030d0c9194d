"""A kept-alive connection answers without a delay."""

from __future__ import annotations

import http.client
import time

from tests.server.conftest import Running


def test_a_kept_alive_request_does_not_wait_for_a_delayed_acknowledgement(server: Running) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    seconds = []
    for _ in range(30):
        started = time.monotonic()
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        seconds.append(time.monotonic() - started)
    connection.close()
    # Linux acknowledges the first segments of a connection at once, later ones after 40 ms.
    assert sorted(seconds)[10] < 0.03
