"""Options of the Python API are checked where they are made, whatever is given for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
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
ENDLESS = {"body_timeout", "keep_alive", "deadline"}
NOT_WHOLE = (1.5, "1", True, math.nan, math.inf, -2)
NOT_A_NUMBER = ("1", True, math.nan, math.inf, -math.inf, -2, 10**400)


def options() -> Iterator[tuple[Callable[..., Any], Field[Any], list[str]]]:
    """Every option of every class, and its types."""
    for kind in OPTIONS:
        for field in fields(kind):  # type: ignore[arg-type]
            yield kind, field, str(field.type).split(" | ")


def wrong_values() -> Iterator[tuple[Callable[..., Any], str, list[object]]]:
    """Every number and switch, with the values that it cannot have."""
    for kind, field, types in options():
        values: tuple[object, ...] = ()
        if "float" in types:
            values = NOT_A_NUMBER
        elif "int" in types:
            values = NOT_WHOLE
        elif "bool" in types:
            values = ("no", 2, 0.0)
        if values and "None" not in types:
            values = (*values, None)
        allowed: tuple[object, ...] = (-2,) if field.name in SIGNED else ()
        if field.name in ENDLESS:
            allowed = (math.inf, 10**400)
        if values:
            yield kind, field.name, [value for value in values if value not in allowed]


@pytest.mark.parametrize(("kind", "name", "values"), [*wrong_values()])
def test_wrong_values_are_refused(
    kind: Callable[..., Any], name: str, values: list[object]
) -> None:
    for value in values:
        with pytest.raises(ParameterError) as caught:
            kind(**OPTIONS[kind] | {name: value})
        assert name in str(caught.value)
        assert str(value) in str(caught.value)


def numpy_values() -> Iterator[tuple[Callable[..., Any], str, object]]:
    """Every number, as NumPy has it."""
    for kind, field, types in options():
        default: Any = field.default
        if (kind, field.name) == (BeamParams, "seed"):  # beams draw nothing
            continue
        if "float" in types:
            yield kind, field.name, np.float32(1 if default is None else default)
        elif "int" in types:
            yield kind, field.name, np.int64(2 if default is None else default)


@pytest.mark.parametrize(("kind", "name", "value"), [*numpy_values()])
def test_numbers_of_numpy_are_accepted(kind: Callable[..., Any], name: str, value: object) -> None:
    assert getattr(kind(**OPTIONS[kind] | {name: value}), name) == value


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_the_server_may_wait_without_end(name: str) -> None:
    assert getattr(ServerOptions(**{name: math.inf}), name) == math.inf  # type: ignore[arg-type]


def test_seeds_of_numpy_are_those_of_python() -> None:
    """A seed has 32 bits above those of the sample, so that numbers of NumPy would overflow."""
    table = read_table(None)
    whole = Evaluation(table=table, seed=2**32 - 1, samples=100)
    narrow: Any = Evaluation(table=table, seed=np.int64(2**32 - 1), samples=np.int8(100))  # type: ignore[arg-type]
    assert narrow.params(3) == whole.params(3)
    assert [*narrow.chunks()] == [*whole.chunks()]


def test_what_a_batch_writes_as_json_has_no_numbers_of_numpy() -> None:
    found = WorkerOptions(seed=np.int64(4), defaults={"temperature": np.float32(0.5)})  # type: ignore[arg-type]
    assert msgspec.json.encode((found.seed, found.defaults)) == b'[4,{"temperature":0.5}]'


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
