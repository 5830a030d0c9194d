"""`issun adapter`, and `--adapter` of chat and generate."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.cli.options import one_adapter
from issun.runtime import Adapter, ParameterError
from tests.adapters import peft_adapter
from tests.cli.conftest import issun

ANSWER = "富士山です。\n"


@pytest.fixture(scope="module")
def adapter(fuji: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter file for the bundle that always gives the same answer."""
    folder = tmp_path_factory.mktemp("adapter")
    peft_adapter(fuji.parent / "checkpoint", folder / "lora")
    result = issun("adapter", fuji, folder / "lora", "-o", folder / "a1")
    assert (result.code, result.out) == (0, "")
    path = folder / "a1"
    size = path.stat().st_size / 1e6
    assert result.err == (
        f"{path}: {size:,.1f} MB, rank 4, 4 linear layers. Use it with --adapter {path}.\n"
    )
    return path


@pytest.mark.slow
def test_an_adapter_answers_with_its_weight(fuji: Path, adapter: Path) -> None:
    without = issun("generate", fuji, "山は?", "--adapter", f"{adapter}=0")
    assert (without.code, without.out, without.err) == (0, ANSWER, "")
    changed = issun("generate", fuji, "山は?", "--adapter", adapter, "--max-new-tokens", "8")
    assert changed.code == 0
    assert changed.out != ANSWER


def test_a_chat_has_the_adapter(fuji: Path, adapter: Path) -> None:
    without = issun("chat", fuji, "--adapter", f"x={adapter}=0", stdin="山は?\n\n川は?\n")
    assert (without.code, without.out) == (0, ANSWER * 2)
    changed = issun("chat", fuji, "--adapter", adapter, stdin="/set max_new_tokens 8\n山は?\n")
    assert changed.code == 0
    assert ANSWER not in changed.out


def test_mistakes_are_one_line(fuji: Path, adapter: Path) -> None:
    twice = ["--adapter", adapter, "--adapter", adapter]
    result = issun("serve", fuji, *twice)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: There are two adapters named a1: give one another name, as in NAME=PATH.\n"
    )
    combined = issun("generate", fuji, "山は?", *twice)
    assert (combined.code, combined.out) == (2, "")
    assert combined.err.startswith("error: Give --adapter once")
    folder = adapter.with_name("lora")
    japanese = issun("generate", fuji, "山は?", "--adapter", folder, ISSUN_LANG="ja")
    assert (japanese.code, japanese.out) == (2, "")
    assert "はフォルダーです。" in japanese.err
    assert japanese.err.count("\n") == 1


def test_an_argument_that_is_empty_is_no_absent_one() -> None:
    assert one_adapter(None) is None
    assert one_adapter(["x=a1=0.5"]) == Adapter("a1", "x", 0.5)
    with pytest.raises(ParameterError, match="name is ''"):
        one_adapter([""])
