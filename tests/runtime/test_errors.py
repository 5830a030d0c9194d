"""Errors are one readable line, however long the names in a file are."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from issun.runtime.errors import BundleError, ParameterError


@pytest.mark.parametrize("value", ["x" * 10**6, Path("/" + "山" * 10**6)])
def test_a_huge_name_is_cut_in_the_middle(value: object) -> None:
    error = BundleError("The tensor {name} is unknown: {hint}.", name=value, hint="look")
    assert len(str(error)) < 900
    assert str(error).startswith(f"The tensor {str(value)[:400]}")
    assert str(error).endswith(f"{str(value)[-100:]} is unknown: look.")
    assert str(copy.copy(error)) == str(error)  # also after pickling


def test_what_fits_stays_whole() -> None:
    name = "山" * 1000
    error = ParameterError("{name} {numbers}", name=name, numbers=[1, 2])
    assert str(error) == f"{name} [1, 2]"
    assert error.values == {"name": name, "numbers": [1, 2]}
