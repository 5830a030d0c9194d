"""`BatchGenerator`: columns in, columns out."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.cluster import BatchGenerator
from issun.runtime import Model, ParameterError, SamplingParams
from issun.server.errors import ApiError


@pytest.fixture(scope="module")
def generator(fuji: Path) -> Iterator[BatchGenerator]:
    found = BatchGenerator(fuji, threads=1)
    yield found
    found.close()


def test_columns(generator: BatchGenerator) -> None:
    batch = {"instruction": np.array(["山は?", " "], object), "n": np.array([3, 4])}
    found = generator(batch)
    assert list(found) == ["instruction", "n", "generated_text", "finish_reason", "status", "error"]
    assert found["n"] is batch["n"]
    assert found["generated_text"].tolist() == ["富士山です。", None]
    assert found["finish_reason"].tolist() == ["stop", None]
    assert found["status"].tolist() == [200, 400]
    assert found["error"].tolist() == [
        None,
        "instruction: there is neither an instruction nor a prompt.",
    ]


def test_parameters_may_be_numbers_of_numpy(fuji: Path) -> None:
    params = SamplingParams(
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        max_new_tokens=np.int64(8),  # type: ignore[arg-type]
        seed=np.int64(5),  # type: ignore[arg-type]
    )
    with closing(BatchGenerator(fuji, params, threads=1)) as generator:
        assert generator({"prompt": ["山は?"]})["status"].tolist() == [200]


def test_an_empty_batch(generator: BatchGenerator) -> None:
    found = generator({"prompt": np.array([], object)})
    assert all(len(column) == 0 for column in found.values())
    assert "generated_text" in found


def test_an_answer_does_not_depend_on_its_batch(exact: Path) -> None:
    texts = [f"山{n}" for n in range(12)]
    params = SamplingParams(temperature=1.0, max_new_tokens=8, min_new_tokens=8, seed=5)
    generator = BatchGenerator(exact, params, threads=1)
    whole = generator({"prompt": np.array(texts)})["generated_text"].tolist()
    parts = [
        text
        for start in range(0, 12, 5)
        for text in generator({"prompt": texts[start : start + 5]})["generated_text"]
    ]
    assert parts == whole
    other = pickle.loads(pickle.dumps(generator))  # noqa: S301 - of this test
    generator.close()
    assert other({"prompt": texts[::-1]})["generated_text"].tolist() == whole[::-1]
    other.close()
    again = BatchGenerator(exact, SamplingParams(max_new_tokens=8, seed=6), threads=1)
    assert again({"prompt": texts})["generated_text"].tolist() != whole
    again.close()


def test_a_template_and_other_types(fuji: Path) -> None:
    generator = BatchGenerator(fuji, template="{n}: {text}", threads=1)
    found = generator({"n": np.arange(2), "text": np.array(["山", None], object)})
    assert found["status"].tolist() == [200, 400]
    ragged = np.array([np.arange(2), np.arange(3)], object)
    found = generator({"n": [np.int64(1), object()], "text": [np.str_("山"), "川"], "v": ragged})
    assert found["status"].tolist() == [200, 200]
    assert found["v"] is ragged
    with pytest.raises(ParameterError, match="text is a single value, it must be a column"):
        generator({"n": [1, 2], "text": "山川"})
    generator.close()


def test_it_is_light_and_lazy() -> None:
    code = (
        "import pickle, sys; from issun.cluster import BatchGenerator;"
        "pickle.loads(pickle.dumps(BatchGenerator('nowhere')));"
        "print({'starlette', 'ray', 'pyarrow', 'psutil'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_parameters_that_rows_cannot_have() -> None:
    with pytest.raises(ParameterError, match="no_repeat_ngram_size cannot be used in a batch"):
        BatchGenerator(params=SamplingParams(no_repeat_ngram_size=2))
    with pytest.raises(ApiError, match="temperature"):
        BatchGenerator(params=SamplingParams(temperature=3))
    with pytest.raises(ParameterError, match="template"):
        BatchGenerator(template="{")


class NAType:
    """pandas' missing value: a comparison with it is neither true nor false."""

    def __eq__(self, other: object) -> Any:
        return self

    def __hash__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


def test_missing_values_are_none(generator: BatchGenerator, exact: Path) -> None:
    for missing in (np.nan, NAType(), np.datetime64("NaT"), None):
        found = generator({"instruction": ["山は?"], "input": np.array([missing], object)})
        assert found["generated_text"].tolist() == ["富士山です。"]
        found = generator({"prompt": np.array([missing, "山は?"], object)})
        assert found["status"].tolist() == [400, 200]
    params = SamplingParams(temperature=1.0, max_new_tokens=8, min_new_tokens=8, seed=5)
    with closing(BatchGenerator(exact, params, threads=1)) as other:
        beside = other({"prompt": ["川", "山"], "custom_id": [np.nan, np.nan]})["generated_text"]
        alone = other({"prompt": ["山"], "custom_id": [np.nan]})["generated_text"]
        assert beside[1] == alone[0]


def test_a_bad_row_is_an_error_of_its_own(generator: BatchGenerator) -> None:
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    other = np.empty(5, object)
    other[:] = ["\ud800", deep, {(1, 2): 3}, "a", "b"]
    found = generator({"instruction": ["山は?"] * 5, 7: other})
    assert found["status"].tolist() == [400, 400, 400, 200, 200]
    assert all("The row is not JSON" in text for text in found["error"][:3])
    found = generator({"instruction": np.array(["山は?".encode(), b"\x8eR"], object)})
    assert found["status"].tolist() == [200, 400]
    with pytest.raises(ParameterError, match="different lengths"):
        generator({"a": [1], "b": [1, 2]})


def test_threads_share_one_bundle(fuji: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []
    load = Model.load
    monkeypatch.setattr(Model, "load", lambda *a, **more: (loads.append(a[0]), load(*a, **more))[1])
    with closing(BatchGenerator(fuji, threads=1)) as generator, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(generator, [{"instruction": ["山は?"]}] * 4))
    assert [one["status"].tolist() for one in found] == [[200]] * 4
    assert loads == [fuji]


def test_a_kv_cache_that_there_is_not() -> None:
    with pytest.raises(ParameterError, match="kv_cache is 'foo', it must be one of float32, int8"):
        BatchGenerator(kv_cache="foo")  # type: ignore[arg-type]
