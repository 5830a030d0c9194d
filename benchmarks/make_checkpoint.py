"""Writes a GPT-2 checkpoint with random weights, in the 1.3 B shape or tiny; does not need torch.

`python -m issun.benchmarks.make_checkpoint DIR [--shape 1b|tiny]`
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.export.calibrate import calibration_text
from issun.export.checkpoint import expected_shapes
from issun.export.config import GPT2Config, parse_config
from issun.export.target import check_space

SPECIAL = {
    "cls_token": "[CLS]",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_CHUNK_VALUES = 1 << 21  # generated at a time


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers, width, heads, context and vocabulary of a checkpoint."""

    n_layer: int
    n_embd: int
    n_head: int
    n_positions: int
    vocab_size: int


SHAPES = {
    # inu-ai/alpaca-guanaco-japanese-gpt-1b
    "1b": Shape(n_layer=24, n_embd=2048, n_head=16, n_positions=1024, vocab_size=44928),
    "tiny": Shape(n_layer=2, n_embd=64, n_head=4, n_positions=1024, vocab_size=1024),
}


def make_checkpoint(
    folder: Path, shape: Shape, *, tokenizer: Path | None = None, seed: int = 0
) -> None:
    """Write config, float32 weights and a tokenizer to the new folder `folder`.

    Weights are normally distributed with standard deviation 0.02, and depend only on `seed`.
    Without `tokenizer`, a small SentencePiece model is trained on issun's calibration text.
    """
    raw = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_fast",
        "bos_token_id": 2,
        "eos_token_id": 3,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": shape.n_positions,
        "n_embd": shape.n_embd,
        "n_head": shape.n_head,
        "n_inner": 4 * shape.n_embd,
        "n_layer": shape.n_layer,
        "n_positions": shape.n_positions,
        "vocab_size": shape.vocab_size,
    }
    config = parse_config(raw, folder / "config.json")
    size = 4 * sum(int(np.prod(s)) for s in expected_shapes(config).values())
    check_space(folder, size)
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", raw)
    _write_json(folder / "tokenizer_config.json", SPECIAL | {"do_lower_case": False})
    if tokenizer is None:
        train_tokenizer(folder / "spiece.model", pieces=min(shape.vocab_size - 24, 600))
    else:
        shutil.copyfile(tokenizer, folder / "spiece.model")
    _write_weights(folder / "model.safetensors", config, seed)


def train_tokenizer(path: Path, *, pieces: int) -> None:
    """Train a SentencePiece unigram model on the calibration text, with the ids of the 1b model."""
    import sentencepiece  # noqa: PLC0415

    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(calibration_text().splitlines()),
            model_writer=file,
            vocab_size=pieces,
            hard_vocab_limit=False,
            character_coverage=1.0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_id=4,
            pad_piece="[PAD]",
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            minloglevel=2,
        )


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_weights(path: Path, config: GPT2Config, seed: int) -> None:
    """Write safetensors directly, since the library needs the whole model in memory."""
    header, offset = {}, 0
    for name, shape in expected_shapes(config).items():
        end = offset + 4 * int(np.prod(shape))
        header[f"transformer.{name}"] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in expected_shapes(config).items():
            for part in _random_weight(rng, name, int(np.prod(shape))):
                file.write(part.data)


def _random_weight(
    rng: np.random.Generator, name: str, count: int
) -> Iterator[NDArray[np.float32]]:
    """A weight's values in chunks; LayerNormalization weights have mean 1, all others 0."""
    centre = np.float32(1 if "ln_" in name and name.endswith("weight") else 0)
    for start in range(0, count, _CHUNK_VALUES):
        values = rng.standard_normal(min(_CHUNK_VALUES, count - start), dtype=np.float32)
        yield values * np.float32(0.02) + centre


def main() -> None:
    """Write the checkpoint as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make_checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--tokenizer", type=Path, help="a SentencePiece model (default: trained)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder} exists: choose another folder")
    make_checkpoint(args.folder, SHAPES[args.shape], tokenizer=args.tokenizer, seed=args.seed)
    print(args.folder, file=sys.stderr)


if __name__ == "__main__":
    main()
