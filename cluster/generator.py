"""Answers batches of columns, for programs that divide the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from issun.cluster.loading import LoadOptions
from issun.cluster.plan import MAX_SLOTS
from issun.cluster.requests import FIELDS, RESULTS, Template, body_fields
from issun.runtime.adapter import Adapter
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import KVCacheType

if TYPE_CHECKING:
    from issun.cluster.worker import Worker


class BatchGenerator:
    """Answers a batch of rows, given as columns; the bundle is loaded at the first call.

    It is pickled without the loaded bundle, so that each process loads its own: pass it to
    `map_batches` of Ray Data, for example. A batch has the columns `prompt`, or `instruction` and
    perhaps `input`, or the fields of `template`.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        params: SamplingParams | None = None,
        *,
        template: str | None = None,
        adapter: str | Path | Adapter | None = None,
        threads: int | None = None,
        slots: int = MAX_SLOTS,
        kv_cache: KVCacheType | None = None,
        trust: bool = False,
    ) -> None:
        """`params` defaults to the bundle's; raises ParameterError for those that it cannot use.

        `adapter` is one of `Model.load`.
        """
        self._bundle = None if bundle is None else Path(bundle)
        self._defaults = {} if params is None else _fields_of(params)
        self._seed = 0 if params is None or params.seed is None else params.seed
        self._template = None if template is None else Template(template)
        if isinstance(adapter, str | Path):
            adapter = Adapter(adapter)
        self._options: dict[str, Any] = {
            "adapter": adapter,
            "threads": threads,
            "slots": slots,
            "kv_cache": kv_cache,
            "trust": trust,
        }
        LoadOptions(**self._options)  # checks them; workers are imported when they are needed
        self._worker: Worker | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of `batch` with `generated_text`, `finish_reason`, `status`, `error`.

        All columns have the same length. A row that is wrong or fails has an error, and no text.
        An answer depends on the seed and on the row's `custom_id`, or on its content if there is
        none, but not on the rows beside it; see `Model.generate_many` for how it is rounded.
        """
        names = list(batch)
        columns = [_values(name, batch[name]) for name in names]
        lines = [
            _encode(self._named(dict(zip(names, values, strict=True))))
            for values in zip(*columns, strict=True)
        ]
        answers = self._loaded().answer(list(enumerate(lines)))
        rows = [msgspec.json.decode(answer.line) for answer in answers]
        results = {name: np.array([row[name] for row in rows], object) for name in RESULTS}
        return {**batch, **results, "status": np.array([row["status"] for row in rows], np.int16)}

    def close(self) -> None:
        """Free the bundle; the next call loads it again."""
        if self._worker:
            self._worker.close()
        self._worker = None

    def _named(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with a `custom_id`, since its index says nothing: batches are cut anywhere."""
        if row.get("custom_id") is not None:
            return row
        return {**row, "custom_id": _encode(row).decode()}

    def _loaded(self) -> Worker:
        if self._worker is None:
            from issun.cluster.worker import Worker, WorkerOptions  # noqa: PLC0415

            self._worker = Worker(
                WorkerOptions(
                    bundle=self._bundle,
                    seed=self._seed,
                    template=self._template,
                    defaults=self._defaults,
                    **self._options,
                )
            )
        return self._worker

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the loaded bundle."""
        return {**vars(self), "_worker": None}


def _values(name: str, column: Any) -> list[Any]:
    """The values of a column; raises ParameterError for a single one."""
    values = np.asarray(column, object)
    if not values.ndim:
        raise ParameterError("{name} is a single value, it must be a column of them.", name=name)
    found: list[Any] = values.tolist()
    return found


def _encode(row: dict[str, Any]) -> bytes:
    """A row as JSON, whatever its columns hold."""
    return msgspec.json.encode(row, order="sorted", enc_hook=_plain)


def _plain(value: Any) -> Any:
    """A value of NumPy as one of Python, and any other that JSON does not have as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def _fields_of(params: SamplingParams) -> dict[str, Any]:
    """The body fields of `params`; raises ParameterError for those that the API does not have."""
    default = SamplingParams()
    for name in (field.name for field in fields(params)):
        same = getattr(params, name) == getattr(default, name)
        if name not in (*FIELDS, "seed", "lookup") and not same:
            raise ParameterError("{name} cannot be used in a batch.", name=name)
    return body_fields({name: getattr(params, name) for name in FIELDS})
