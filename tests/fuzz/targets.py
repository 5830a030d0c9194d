"""The files to mutate, and how a user would then use them.

All targets work in one folder with an intact `bundle`, `checkpoint` and `saved`.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from issun.export import ExportOptions, export
from issun.runtime import Conversation, Model
from issun.runtime.manifest import sha256_of
from issun.runtime.weights import weight_cache
from tests.checkpoints import Shape, write_checkpoint
from tests.fuzz.mutating import Mutate, mutate_bytes, mutate_graph, mutate_json

SHAPE = Shape(n_embd=64, n_head=4, n_layer=1, n_positions=256)
_CHECK = 4  # bytes of a checksum


@dataclass(frozen=True, slots=True)
class Target:
    """The file to mutate, how to mutate it, and what reads it; both functions get the folder."""

    file: str
    mutate: Mutate
    attempt: Callable[[Path], object]


def prepare(folder: Path, spiece: Path) -> None:
    """Create the files to mutate: a checkpoint with all tokenizer files, a bundle, a saved chat."""
    checkpoint = write_checkpoint(folder / "checkpoint", SHAPE, spiece)
    token = {"content": "<|user|>", "lstrip": False, "rstrip": True, "special": True}
    more = {
        "added_tokens.json": {"<|user|>": 400, "答え": 401},
        "special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["<|user|>"]},
        "tokenizer.json": {"added_tokens": [token | {"id": 400, "single_word": False}]},
        "generation_config.json": {
            **{"do_sample": True, "temperature": 0.7, "top_k": 40, "max_new_tokens": 20},
            **{"eos_token_id": [3, 5], "bad_words_ids": [[1], [7]], "repetition_penalty": 1.1},
        },
    }
    for name, content in more.items():
        (checkpoint / name).write_text(json.dumps(content), encoding="utf-8")
    export(checkpoint, folder / "bundle", ExportOptions(precision="int8"))
    (folder / "saved").mkdir()
    with Model.load(folder / "bundle", threads=1) as model:
        chat = Conversation(model, ["User:山"], params=_few(model))
        chat.reply("山は?")
        chat.save(folder / "saved/chat.json")


def _few(model: Model) -> object:
    return replace(model.default_params, max_new_tokens=3, min_new_tokens=0, seed=0)


def _use(folder: Path) -> None:
    """Load the bundle and chat with it."""
    with Model.load(folder / "bundle", threads=1) as model:
        chat = Conversation(model, params=_few(model))
        chat.reply("山は?")
        chat.reply("川は 😀 </s>?")
        model.score(model.tokenizer.encode("日本で一番高い山は?", special=True))


def _use_mended(name: str) -> Callable[[Path], None]:
    """Use the bundle after updating the manifest to the mutated file, as its author could."""

    def use(folder: Path) -> None:
        path = folder / "bundle" / name
        manifest = json.loads((folder / "bundle/issun.json").read_text(encoding="utf-8"))
        manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        (folder / "bundle/issun.json").write_text(json.dumps(manifest), encoding="utf-8")
        _use(folder)

    return use


def _use_packed(folder: Path) -> None:
    """Use the bundle like a large one: its weights are packed, cached and mapped."""
    cache = weight_cache.default_cache()
    if cache is not None and cache.folder.is_dir():
        shutil.rmtree(cache.folder)
    weight_cache.MIN_BUNDLE_BYTES = 0
    _use_mended("model.onnx")(folder)
    _use(folder)


def _export(folder: Path) -> None:
    """Export the checkpoint and use the bundle."""
    target = folder / "exported"
    shutil.rmtree(target, ignore_errors=True)
    export(folder / "checkpoint", target, ExportOptions(precision="float32"))
    with Model.load(target, threads=1) as model:
        Conversation(model, params=_few(model)).reply("山は <|user|> 答え?")


class _Chat:
    """Loads a saved conversation and continues it."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def __call__(self, folder: Path) -> None:
        if self._model is None:
            self._model = Model.load(folder / "bundle", threads=1)
        chat = Conversation(self._model, params=_few(self._model))
        chat.load(folder / "saved/chat.json")
        try:
            chat.reply("川は?")
        finally:
            chat.reset()
            chat.reply("川は?")  # the file's fault has no further effect


def _mutate_kv(content: bytes, rng: Random) -> bytes:
    """Change the header or the values, mostly with the right checksum."""
    line, values = content[:-_CHECK].split(b"\n", 1)
    if rng.random() < 0.5:
        line = mutate_json(line, rng)
    else:
        values = mutate_bytes(values, rng)
    changed = line + b"\n" + values
    check = zlib.crc32(changed) if rng.random() < 0.9 else rng.getrandbits(32)
    return changed + check.to_bytes(_CHECK, "little")


def _mutate_header(content: bytes, rng: Random) -> bytes:
    """Change the header of a safetensors file: its text, or its fields with the right length."""
    end = 8 + int.from_bytes(content[:8], "little")
    if rng.random() < 0.3:
        return mutate_bytes(content[:end], rng) + content[end:]
    header = mutate_json(content[8:end], rng)
    return len(header).to_bytes(8, "little") + header + content[end:]


TARGETS = {
    "manifest": Target("bundle/issun.json", mutate_json, _use),
    "graph": Target("bundle/model.onnx", mutate_graph, _use_mended("model.onnx")),
    "packed graph": Target("bundle/model.onnx", mutate_graph, _use_packed),
    "tokenizer": Target("bundle/spiece.model", mutate_bytes, _use_mended("spiece.model")),
    "tokenizer at export": Target("checkpoint/spiece.model", mutate_bytes, _export),
    "safetensors": Target("checkpoint/model.safetensors", _mutate_header, _export),
    "conversation": Target("saved/chat.json", mutate_json, _Chat()),
    "keys and values": Target("saved/chat.json.kv", _mutate_kv, _Chat()),
} | {
    name: Target(f"checkpoint/{name}", mutate_json, _export)
    for name in (
        *("config.json", "generation_config.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
    )
}
