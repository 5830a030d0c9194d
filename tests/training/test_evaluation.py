"""The embedded model's table: rates side by side, and what falls from the first bundle on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from issun.runtime.model import bundle_folder
from issun.training.embedded.evaluation import evaluate_bundle, print_rates


def found(reading: str) -> dict[str, Any]:
    """What an evaluation gives, with these verdicts on reading."""
    part = {"questions": len(reading), "verdicts": {"reading": reading}}
    published = {"rows": [{"question": "湖は?", "format": "short"}], "verdicts": ["1110"]}
    return {"held out": {"short": part}, "trained": {"short": part}, "published": published}


def test_a_fall_has_its_paired_interval(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates({"float32": found("1" * 50), "int4": found("1" * 48 + "00")})
    table, falls = capsys.readouterr().out.split("\n\n")
    assert "| 湖は? short format | 75.0% | 75.0% |" in table
    assert "| held out, short: reading | 100.0% | 96.0% |" in table
    assert falls.splitlines() == [
        "int4 against float32, falls of more than 2%:",
        "- held out, short format (50 questions): -4.0%, 95 % between -13.5% and +3.7%, of 50",
        "- held out, short: reading: -4.0%, 95 % between -13.5% and +3.7%, of 50",
        "- trained, short format (50 questions): -4.0%, 95 % between -13.5% and +3.7%, of 50",
        "- trained, short: reading: -4.0%, 95 % between -13.5% and +3.7%, of 50",
    ]


def test_no_fall_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates({"float32": found("1" * 49 + "0"), "int8": found("0" + "1" * 49)})
    assert capsys.readouterr().out.endswith("falls of more than 2%:\nnone\n")


def test_every_row_of_the_table_has_its_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    rates = evaluate_bundle(Path(bundle_folder(None)), samples=3, short=2, chat=4)
    print_rates({"embedded": rates})
    assert all(len(part["verdicts"]) for part in rates["held out"].values())
    short = rates["held out"]["short"]
    assert sum(map(len, short["verdicts"].values())) == short["questions"]
    assert rates["published"]["verdicts"] == ["111"] * 4
    assert "held out, chat format (4 questions)" in capsys.readouterr().out
