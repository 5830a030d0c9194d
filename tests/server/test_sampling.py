"""Sampling fields of a request become the parameters that the Python API has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from issun.runtime import Model, ParameterError, SamplingParams
from issun.server.errors import ApiError
from issun.server.sampling import sampling_params
from issun.server.types import CompletionRequest
from tests.server.conftest import Running, running

DRY = {"dry_multiplier": 0.8, "dry_base": 1.5, "dry_allowed_length": 3, "dry_penalty_last_n": 64}
XTC = {"xtc_probability": 0.5, "xtc_threshold": 0.2}
MIROSTAT = {"mirostat": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.2}
DYNAMIC = {"dynatemp_range": 0.3, "dynatemp_exponent": 2.0}


def params(model: Model, **fields: Any) -> SamplingParams:
    request = CompletionRequest(prompt="山", **fields)
    (found,) = sampling_params(model, request, max_tokens=5, logprobs=0)
    return found


@pytest.mark.parametrize("fields", [DRY, XTC, MIROSTAT, DYNAMIC, {"top_n_sigma": 1.5}])
def test_fields_are_parameters(embedded: Model, fields: dict[str, Any]) -> None:
    found = params(embedded, **fields)
    assert {name: getattr(found, name) for name in fields} == fields
    assert params(embedded, dry_multiplier=1, dry_sequence_breakers=["。"]) == replace(
        params(embedded), dry_multiplier=1, dry_sequence_breakers=["。"]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"xtc_probability": 0, "xtc_threshold": 0.9},
        {"xtc_threshold": 0},
        {"dry_multiplier": 0.0, "dry_base": 0, "dry_sequence_breakers": '["\\n"]'},
        {"mirostat": 0, "mirostat_tau": -1},
        {"dynatemp_range": 0, "dynatemp_exponent": 0},
        {"top_n_sigma": -1},
    ],
)
def test_fields_of_a_filter_that_is_off_do_not_matter(
    embedded: Model, fields: dict[str, Any]
) -> None:
    assert params(embedded, **fields) == params(embedded)


def test_a_filter_that_the_bundle_has_on_can_be_changed_and_turned_off(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(embedded.manifest.sampling, "xtc_probability", 0.5)
    monkeypatch.setattr(
        embedded, "default_params", replace(embedded.default_params, xtc_probability=0.5)
    )
    assert params(embedded, xtc_threshold=0.3).xtc_threshold == 0.3
    assert params(embedded, xtc_probability=0, xtc_threshold=9.0).xtc_probability == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mirostat": 1}, "mirostat is 1"),
        ({"xtc_probability": 2.0}, "xtc_probability is 2.0"),
        ({"xtc_probability": 0.5, "temperature": 0}, "no effect at temperature 0"),
    ],
)
def test_values_out_of_range(embedded: Model, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        params(embedded, **fields)


def test_sequence_breakers_are_a_list(embedded: Model) -> None:
    with pytest.raises(ApiError, match="dry_sequence_breakers: it must be a list"):
        params(embedded, dry_multiplier=1, dry_sequence_breakers="\n")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with Model.load(threads=1) as model, running(model, slots=2) as found:
        yield found


def test_an_answer_is_that_of_the_python_api(server: Running, embedded: Model) -> None:
    fields = {"temperature": 1.5, **DRY, **XTC, **MIROSTAT, **DYNAMIC, "top_n_sigma": 2.0}
    body = {"prompt": "日本で一番高い山は", "max_tokens": 12, "seed": 3, **fields}
    found = server.post("/v1/completions", body)
    assert found.status_code == 200, found.text
    chosen = replace(embedded.default_params, max_new_tokens=12, seed=3, lookup=False, **fields)
    own = embedded.generate("日本で一番高い山は", chosen)
    assert found.json()["choices"][0]["text"] == own.text
    refused = server.post("/v1/completions", body | {"mirostat": 1})
    assert refused.status_code == 400
    assert "mirostat is 1" in refused.json()["error"]["message"]
