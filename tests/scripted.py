"""Checkpoints with a fixed answer: each token has exactly one successor.

Embeddings are one-hot and all blocks give zero, so the logits depend on the last token alone. With
them, transcripts of the command line can be compared exactly, in every precision.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from issun.benchmarks.small_tokenizers import SPECIAL
from issun.export.template import ALPACA
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from tests.checkpoints import Shape, config_of, make_weights, save_weights
from tests.special_ids import assign_special_ids

EOS = 3


def write_scripted(
    folder: Path, spiece: Path, answer: str, *, endless: bool = False, n_positions: int = 256
) -> Path:
    """Write a checkpoint that answers every prompt with `answer`, once or over and over."""
    shape = Shape(
        n_embd=512, n_head=8, n_layer=1, n_positions=n_positions, tie_word_embeddings=False
    )
    tokenizer = SentencePieceTokenizer(spiece, assign_special_ids(spiece, list(SPECIAL.values())))
    last = tokenizer.encode(ALPACA.with_input, special=True)[-1]
    chain = tokenizer.encode(answer)
    if len({last, *chain}) != len(chain) + 1:
        raise ValueError(f"{answer!r} has a token twice: {chain}")
    successor = dict.fromkeys(range(shape.vocab_size), EOS)
    successor |= dict(zip([last, *chain], [*chain, chain[0] if endless else EOS], strict=True))
    weights = {name: np.zeros_like(array) for name, array in make_weights(shape).items()}
    for name, array in weights.items():
        if ".ln_" in name and name.endswith(".weight"):
            array[:] = 1
    weights["transformer.wte.weight"] = np.eye(shape.vocab_size, shape.n_embd, dtype=np.float32)
    # LayerNormalization subtracts the mean of the one-hot vector; its bias adds it back.
    mean = 1 / shape.n_embd
    weights["transformer.ln_f.bias"][:] = mean / np.sqrt(mean * (1 - mean))
    for token, follower in successor.items():
        weights["lm_head.weight"][follower, token] = 1
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape)), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL), encoding="utf-8")
    shutil.copyfile(spiece, folder / "spiece.model")
    save_weights(folder, weights)
    return folder
