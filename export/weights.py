"""Reads the weight files of a checkpoint one tensor, or some rows of it, at a time."""

from __future__ import annotations

import json
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from issun.export.config import read_json
from issun.export.errors import CheckpointError, MissingExtraError

Array = NDArray[np.float32]

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PYTORCH, PYTORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHT_FILES = (SAFETENSORS, SAFETENSORS_INDEX, PYTORCH, PYTORCH_INDEX)

# Keys under which Lightning, plain training loops and DeepSpeed store the state dict.
_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "module")

_DTYPES: Mapping[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class Tensor(ABC):
    """A stored tensor: name, shape and dtype are known, values are read on demand."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype

    @abstractmethod
    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""


class SafetensorsTensor(Tensor):
    """A tensor in a safetensors file, read without memory mapping."""

    def __init__(
        self, file: SafetensorsFile, name: str, shape: tuple[int, ...], dtype: str, offset: int
    ) -> None:
        super().__init__(name, shape, dtype)
        self._file, self._offset = file, offset

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        dtype = np.dtype(_DTYPES[self.dtype])
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        row = math.prod(self.shape[1:]) * dtype.itemsize
        raw = self._file.read(self._offset + start * row, (stop - start) * row)
        array = np.frombuffer(raw, dtype).reshape(stop - start, *self.shape[1:])
        return array.astype(np.float32, copy=False)


class SafetensorsFile:
    """A safetensors file; format: https://github.com/huggingface/safetensors."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415

        self.path = path
        try:
            # The library validates the header: bounds, overlaps, gaps and the file size.
            with safe_open(path, framework="np"):
                pass
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                "{path} is damaged or was not downloaded completely: {reason}",
                path=path,
                reason=error,
            ) from error
        header.pop("__metadata__", None)
        self.tensors = {
            name: SafetensorsTensor(
                self, name, tuple(e["shape"]), e["dtype"], 8 + length + e["data_offsets"][0]
            )
            for name, e in header.items()
        }

    def read(self, offset: int, size: int) -> bytearray:
        """`size` bytes at `offset`; raises CheckpointError if the file is too short."""
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            while done < size:  # a single call reads at most 2 GiB
                count = file.readinto(view[done:])
                if not count:
                    raise CheckpointError("{path} was truncated while being read.", path=self.path)
                done += count
        return buffer


class TorchTensor(Tensor):
    """A tensor of a pickled checkpoint, memory-mapped by torch."""

    def __init__(self, name: str, tensor: Any) -> None:
        super().__init__(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        self._tensor = tensor

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        array: Array = self._tensor[start:stop].float().numpy()
        return array


def open_weights(folder: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """All tensors of the checkpoint in `folder`, and the files that contain them.

    safetensors is preferred to pickled files; both may be sharded. Raises CheckpointError if there
    are no weights or a file is damaged, and MissingExtraError if a pickled file needs torch.
    """
    for whole, index, opener in (
        (SAFETENSORS, SAFETENSORS_INDEX, _open_safetensors),
        (PYTORCH, PYTORCH_INDEX, _open_pickled),
    ):
        if (folder / whole).is_file():
            paths = [folder / whole]
        elif (folder / index).is_file():
            paths = _shards(folder / index)
        else:
            continue
        tensors: dict[str, Tensor] = {}
        for path in paths:
            tensors |= opener(path)
        return tensors, paths
    raise CheckpointError(
        "{folder} has no weights: expected {expected}.",
        folder=folder,
        expected=f"{', '.join(WEIGHT_FILES[:-1])} or {WEIGHT_FILES[-1]}",
    )


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError("{path} has no weight_map.", path=index)
    files = sorted(set(map(str, names.values())))
    for name in files:
        if Path(name).name != name:
            raise CheckpointError(
                "{path} lists {name!r}, which is not in its folder.", path=index, name=name
            )
    if missing := [name for name in files if not (index.parent / name).is_file()]:
        raise CheckpointError(
            "{folder} lacks {names}, which {index} lists.",
            folder=index.parent,
            names=", ".join(missing),
            index=index.name,
        )
    return [index.parent / name for name in files]


def _open_safetensors(path: Path) -> Mapping[str, Tensor]:
    return SafetensorsFile(path).tensors


def _open_pickled(path: Path) -> Mapping[str, Tensor]:
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError(
            "{path} is a pickled checkpoint: reading it needs torch (`pip install torch`), unlike "
            "model.safetensors.",
            path=path,
        ) from None
    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # torch raises errors of many types
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(
            "{path} is damaged, or refused because it contains more than weights: {reason}",
            path=path,
            reason=reason,
        ) from error
    for table in _tables(state):
        if table and all(isinstance(tensor, torch.Tensor) for tensor in table.values()):
            return {str(name): TorchTensor(name, tensor) for name, tensor in table.items()}
    raise CheckpointError("{path} does not contain a table of tensors.", path=path)


def _tables(state: object) -> list[dict[str, Any]]:
    """Candidates for the state dict: the whole object, or an entry of a training checkpoint."""
    candidates = [state, *map(state.get, _NESTED_KEYS)] if isinstance(state, dict) else []
    return [table for table in candidates if isinstance(table, dict)]
