"""`issun inspect` in the reader's language; tests/cli/test_bad_input.py has its errors."""

import re

import pytest

from issun.cli import inspect
from tests.cli.conftest import issun


def test_the_embedded_model_in_japanese() -> None:
    shown = issun("inspect", ISSUN_LANG="ja").out
    assert (
        "線形層: int8（出力チャネルごと。活性化は行ごとに量子化）、外れ値の 64 チャネルは float32\n"
        in shown
    )
    assert "埋め込み: 8 ビット、32 個ずつのブロック\n" in shown
    assert re.search(
        r"キャリブレーション: 付属のテキスト（sha256 \w+）、256 トークンずつ最大 4 区間\n", shown
    )
    assert not re.search(r"[()]", shown.split("\n", 1)[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float32", "float32"),
        ("4-bit symmetric blocks of 128, GPTQ", "4 ビット対称、128 個ずつのブロック、GPTQ"),
        (
            "int8 for 3 linear layers, int4 for 21 linear layers; 8 outlier channels in float32; "
            "KL divergence 0.012 on the calibration text",
            "int8（線形層 3 個）、int4（線形層 21 個）、外れ値の 8 チャネルは float32、"
            "キャリブレーション用テキストでの KL ダイバージェンス 0.012",
        ),
        (
            "text own.txt (sha256 0123), up to 32 windows of 256 tokens",
            "own.txt（sha256 0123）、256 トークンずつ最大 32 区間",
        ),
    ],
)
def test_what_an_export_wrote(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSUN_LANG", "en")
    assert inspect.shown_precision(text) == text
    monkeypatch.setenv("ISSUN_LANG", "ja")
    assert inspect.shown_precision(text) == expected
