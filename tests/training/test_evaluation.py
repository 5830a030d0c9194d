"""The table of the embedded model's evaluation: rates, and drops from the first bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from issun.runtime.demonstration import bundle_folder
from issun.training.embedded.evaluation import evaluate_bundle, print_rates


def found(reading: str) -> dict[str, Any]:
    """The result of an evaluation with the given verdicts on reading."""
    part = {"questions": len(reading), "verdicts": {"reading": reading}}
    published = {"rows": [{"question": "湖は?", "format": "short"}], "verdicts": ["1110"]}
    return {"held out": {"short": part}, "trained": {"short": part}, "published": published}


def test_a_drop_has_its_paired_interval(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates({"float32": found("1" * 50), "int4": found("1" * 48 + "00")})
    table, drops = capsys.readouterr().out.split("\n\n")
    assert "| 湖は? short format | 75.0% | 75.0% |" in table
    assert "| held out, short: reading | 100.0% | 96.0% |" in table
    assert drops.splitlines() == [
        "int4 compared with float32, drops of more than 2 points:",
        "- held out, short format (50 questions): -4.0%, 95 % confidence interval -13.5% to +3.7%, "
        "n = 50",
        "- held out, short: reading: -4.0%, 95 % confidence interval -13.5% to +3.7%, n = 50",
        "- trained, short format (50 questions): -4.0%, 95 % confidence interval -13.5% to +3.7%, "
        "n = 50",
        "- trained, short: reading: -4.0%, 95 % confidence interval -13.5% to +3.7%, n = 50",
    ]


def test_no_drop_is_reported_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates({"float32": found("1" * 49 + "0"), "int8": found("0" + "1" * 49)})
    assert capsys.readouterr().out.endswith("drops of more than 2 points:\nnone\n")


@pytest.mark.slow
def test_every_row_of_the_table_has_its_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    rates = evaluate_bundle(Path(bundle_folder(None)), samples=3, short=2, chat=4)
    print_rates({"embedded": rates})
    assert all(len(part["verdicts"]) for part in rates["held out"].values())
    short = rates["held out"]["short"]
    assert sum(map(len, short["verdicts"].values())) == short["questions"]
    assert rates["published"]["verdicts"] == ["111"] * 4
    assert "held out, chat format (4 questions)" in capsys.readouterr().out
