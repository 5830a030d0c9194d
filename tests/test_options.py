"""Options of the Python API are checked where they are made, whatever is given for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks.accuracy import read_table
from issun.benchmarks.asking import Evaluation
from issun.cluster.batch import BatchOptions
from issun.cluster.generator import BatchGenerator
from issun.cluster.loading import LoadOptions
from issun.cluster.worker import WorkerOptions
from issun.export.options import AdapterSource, ExportOptions
from issun.runtime import Adapter, BeamParams, SamplingParams
from issun.runtime.errors import ParameterError
from issun.server.options import ServerOptions
from issun.training.recipe import Lora, Recipe

# What is needed to make each.
OPTIONS: dict[Callable[..., Any], dict[str, Any]] = {
    ServerOptions: {},
    SamplingParams: {},
    BeamParams: {},
    LoadOptions: {},
    WorkerOptions: {},
    BatchOptions: {"source": Path("in.jsonl"), "target": Path("out.jsonl")},
    Recipe: {},
    Lora: {},
    ExportOptions: {},
    Adapter: {"path": "a.adapter"},
    AdapterSource: {"source": "a"},
    Evaluation: {"table": read_table(None)},
}
SIGNED = {"presence_penalty", "frequency_penalty", "length_penalty", "weight"}
ENDLESS = {"deadline"}
NOT_WHOLE = (1.5, "1", True, math.nan, math.inf, -2)
NOT_A_NUMBER = ("1", True, math.nan, math.inf, -math.inf, -2)


def wrong_values() -> Iterator[tuple[Callable[..., Any], str, object]]:
    """Every number and switch of every class, with values that it cannot have."""
    for kind in OPTIONS:
        for field in fields(kind):  # type: ignore[arg-type]
            types = str(field.type).split(" | ")
            values: tuple[object, ...] = ()
            if "float" in types:
                values = NOT_A_NUMBER
            elif "int" in types:
                values = NOT_WHOLE
            elif "bool" in types:
                values = ("no", 2, 0.0)
            for value in values:
                if value == -2 and field.name in SIGNED:
                    continue
                if value == math.inf and field.name in ENDLESS:
                    continue
                yield kind, field.name, value


@pytest.mark.parametrize(("kind", "name", "value"), [*wrong_values()])
def test_a_wrong_value_is_refused(kind: Callable[..., Any], name: str, value: object) -> None:
    with pytest.raises(ParameterError) as caught:
        kind(**OPTIONS[kind] | {name: value})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("kind", [*OPTIONS])
def test_what_is_left_out_is_right(kind: Callable[..., Any]) -> None:
    kind(**OPTIONS[kind])


@pytest.mark.parametrize("options", [{"threads": 0}, {"slots": "2"}, {"trust": "no"}])
def test_a_generator_checks_before_it_loads(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        BatchGenerator(**options)


@pytest.mark.parametrize("name", ["allowed_hosts", "allowed_origins"])
def test_a_text_is_no_list_of_names(name: str) -> None:
    options: dict[str, Any] = {name: "https://a.example"}
    with pytest.raises(ParameterError, match=f"{name} is 'https://a.example'"):
        ServerOptions(**options)
