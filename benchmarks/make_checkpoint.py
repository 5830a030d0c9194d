"""Writes a checkpoint with random weights in the shape of a published model; without torch.

`python -m issun.benchmarks.make_checkpoint DIR [--family gpt-neox] [--size 3.6b]`
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.shapes import SHAPES, Config
from issun.benchmarks.small_tokenizers import write_json, write_tokenizer
from issun.export.canonical import expected_shapes
from issun.export.config import parse_config
from issun.export.target import check_space
from issun.runtime.errors import IssunError

DTYPES = {"float32": "F32", "float16": "F16"}  # numpy's and safetensors' names
_CHUNK_VALUES = 1 << 21  # generated at a time


def make_checkpoint(
    folder: Path,
    config: Config,
    *,
    dtype: str = "float32",
    tokenizer: Path | None = None,
    seed: int = 0,
) -> None:
    """Write `config`, random weights and a tokenizer to the new folder `folder`.

    Weights are normally distributed with standard deviation 0.02, and depend only on `seed`. No
    more than a part of one tensor is in memory. The tokenizer is a small one of the config's
    class, or the SentencePiece model `tokenizer`.
    """
    family, network = parse_config(dict(config), folder / "config.json")
    # The names lack the prefix of the model class, which the head's does not have.
    shapes = {
        name if name == family.head_weight else f"{family.base}{name}": shape
        for name, shape in expected_shapes(family, network).items()
    }
    check_space(folder, np.dtype(dtype).itemsize * sum(map(math.prod, shapes.values())))
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {**config, "torch_dtype": dtype})
    write_tokenizer(folder, config["tokenizer_class"], network.vocab_size, tokenizer)
    _write_weights(folder / "model.safetensors", shapes, np.dtype(dtype), seed)


def _write_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any], seed: int
) -> None:
    """Write safetensors directly, since the library needs the whole model in memory."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + dtype.itemsize * math.prod(shape)
        header[name] = {
            "dtype": DTYPES[dtype.name],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            is_gain = len(shape) == 1 and name.endswith("weight")  # of a norm
            for part in _random_weight(rng, math.prod(shape), mean=1 if is_gain else 0):
                file.write(part.astype(dtype, copy=False).data)


def _random_weight(
    rng: np.random.Generator, count: int, *, mean: float
) -> Iterator[NDArray[np.float32]]:
    """A weight's values in chunks."""
    for start in range(0, count, _CHUNK_VALUES):
        values = rng.standard_normal(min(_CHUNK_VALUES, count - start), dtype=np.float32)
        yield values * np.float32(0.02) + np.float32(mean)


def main() -> None:
    """Write the checkpoint as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make_checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=SHAPES, default="gpt2")
    parser.add_argument("--size", default="1b", help="of a published model, or tiny")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--tokenizer", type=Path, help="a SentencePiece model to use instead")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sizes = SHAPES[args.family]
    if args.size not in sizes:
        parser.error(f"{args.family} has no size {args.size}: choose from {', '.join(sizes)}")
    if args.folder.exists():
        parser.error(f"{args.folder} exists: choose another folder")
    try:
        make_checkpoint(
            args.folder,
            sizes[args.size],
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            seed=args.seed,
        )
    except IssunError as error:
        parser.error(str(error))
    print(args.folder, file=sys.stderr)


if __name__ == "__main__":
    main()
