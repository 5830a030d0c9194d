"""Writes files of one kind repeatedly until it is killed: `python -m tests.soak.writer`.

Arguments: the kind, the folder of `tests.fuzz.targets.prepare`, and the output folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from issun.export import ExportOptions, export
from issun.runtime import Conversation, Model
from issun.runtime.weights import weight_cache


def _export(folder: Path, out: Path) -> Iterator[None]:
    for _ in count():
        export(folder / "checkpoint", out / "bundle", ExportOptions(force=True))
        yield


def _pack(folder: Path, out: Path) -> Iterator[None]:
    """Pack weights, and store the prompt cache next to them."""
    weight_cache.MIN_BUNDLE_BYTES = 0
    cache = weight_cache.WeightCache(out)
    weight_cache.default_cache = lambda: cache  # type: ignore[assignment]
    for _ in count():
        with Model.load(folder / "bundle", threads=1) as model:
            Conversation(model).read_ahead()
        yield
        cache.clear()


def _save(folder: Path, out: Path) -> Iterator[None]:
    with Model.load(folder / "bundle", threads=1) as model:
        chat = Conversation(model, ["User:山"] * 3)
        chat.read_ahead()
        for number in count():
            chat.save(out / f"{number}.json")
            yield


def _finetune(folder: Path, out: Path) -> Iterator[None]:
    from issun.training.finetune import finetune
    from issun.training.recipe import Recipe

    data = folder / "data.jsonl"
    lines = [
        json.dumps({"instruction": f"{n}の次は?", "output": f"{n + 1}です。"}) for n in range(4)
    ]
    data.write_text("\n".join(lines), encoding="utf-8")
    for number in count():
        recipe = Recipe(epochs=2, batch_size=2, learning_rate=1e-3)
        finetune(folder / "checkpoint", data, out / f"run-{number}", recipe)
        yield


WRITERS: dict[str, Callable[[Path, Path], Iterator[None]]] = {
    "export": _export,
    "packing": _pack,
    "saving": _save,
    "fine-tuning": _finetune,
}


def main() -> None:
    """Write repeatedly; prints a line after the first time."""
    kind, folder, out = sys.argv[1:]
    for number, _ in enumerate(WRITERS[kind](Path(folder), Path(out))):
        if number == 0:
            print("ready", flush=True)


if __name__ == "__main__":
    main()
