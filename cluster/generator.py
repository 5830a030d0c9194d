"""Answers batches of columns, for programs that divide the rows themselves."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from issun.cluster.loading import LoadOptions
from issun.cluster.plan import MAX_SLOTS
from issun.cluster.requests import (
    FIELDS,
    RESULTS,
    Template,
    body_fields,
    decode_bytes,
)
from issun.runtime.adapter import Adapter
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import KVCacheType
from issun.server.errors import ApiError, error_object

if TYPE_CHECKING:
    from issun.cluster.worker import Worker

_LOADING = threading.Lock()  # of the module, since a lock cannot be pickled


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
        Missing values of NumPy and pandas count as None. Raises ParameterError for columns of
        different lengths.
        """
        columns = {str(name): _values(name, batch[name]) for name in batch}
        if len(set(map(len, columns.values()))) > 1:
            lengths = {name: len(values) for name, values in columns.items()}
            raise ParameterError("The columns have different lengths: {lengths}.", lengths=lengths)
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        lines = [_line(row) for row in rows]
        good = [(index, line) for index, line in enumerate(lines) if isinstance(line, bytes)]
        answers = {answer.row: answer.line for answer in self._loaded().answer(good)}
        rows = [
            _failed(line) if isinstance(line, ApiError) else msgspec.json.decode(answers[index])
            for index, line in enumerate(lines)
        ]
        results = {name: np.array([row[name] for row in rows], object) for name in RESULTS}
        return {**batch, **results, "status": np.array([row["status"] for row in rows], np.int16)}

    def close(self) -> None:
        """Free the bundle; the next call loads it again."""
        with _LOADING:
            worker, self._worker = self._worker, None
        if worker:
            worker.close()

    def _loaded(self) -> Worker:
        if worker := self._worker:  # others do not wait while one loads
            return worker
        with _LOADING:
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
    return [None if _is_missing(value) else value for value in values.tolist()]


def _is_missing(value: Any) -> bool:
    """Whether a value is NaN or NaT, or pandas' NA, which needs no pandas to be known."""
    if isinstance(value, float | np.floating | np.datetime64 | np.timedelta64):
        return bool(value != value)  # noqa: PLR0124 - these alone differ from themselves
    return type(value).__name__ in ("NAType", "NaTType")


def _line(row: dict[str, Any]) -> bytes | ApiError:
    """A row as JSON with a `custom_id`, or why JSON cannot have it.

    Its index would say nothing: batches are cut anywhere.
    """
    try:
        row = decode_bytes(row)
        name = row.get("custom_id")
        if name is None or (isinstance(name, str) and not name):
            row = {**row, "custom_id": _encode(row).decode()}
        return _encode(row)
    except (TypeError, ValueError, RecursionError) as error:
        return ApiError("The row is not JSON: {reason}", reason=str(error))


def _failed(error: ApiError) -> dict[str, Any]:
    """The results of a row that JSON cannot have."""
    message = error_object(error)["error"]["message"]
    return dict(zip(RESULTS, (None, None, error.status, message), strict=True))


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
