"""What the series of kills count as a fault."""

from __future__ import annotations

import pytest

from tests.cluster.kills import faults_of

EXPECTED = b'{"custom_id":"a","n":1}\n{"custom_id":"b","n":2}\n{"custom_id":"c","n":3}\n'
A, B, C = EXPECTED.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("found", "lost", "doubled", "different", "moved"),
    [
        (EXPECTED, 0, 0, 0, 0),
        (b"", 3, 0, 0, 0),
        (A + C, 1, 0, 0, 0),
        (A + B + B + C, 0, 1, 0, 0),
        (A + B.replace(b"2", b"9") + C, 0, 0, 1, 0),
        (EXPECTED + b'{"custom_id":"d"}\n', 0, 0, 1, 0),
        (C + B + A, 0, 0, 0, 1),
    ],
)
def test_faults_are_counted(
    found: bytes, lost: int, doubled: int, different: int, moved: int
) -> None:
    counts = faults_of(found, EXPECTED)
    assert counts == {"lost": lost, "doubled": doubled, "different": different, "moved": moved}
