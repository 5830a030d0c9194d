"""How far quantized bundles of a checkpoint are from its float32 bundle, on a text.

`python -m issun.benchmarks.fidelity CHECKPOINT --text FILE [--bytes 20000]`

The text is encoded whole and cut into windows of 512, without a start token. KL divergence in nats,
mean over positions. "One by one" compares tokens decoded singly with one whole forward.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.export import ExportOptions, export
from issun.export.lazy import PRECISIONS
from issun.runtime import Model
from issun.runtime.manifest import KV_CACHE_TYPES

Logits = NDArray[np.float32]
WINDOW = 512


def score_windows(model: Model, ids: Sequence[int]) -> Logits:
    """Logits of every position, each window read by itself: (len(ids), vocab)."""
    windows = (ids[i : i + WINDOW] for i in range(0, len(ids), WINDOW))
    return np.concatenate([model.score(window) for window in windows])


def score_one_by_one(model: Model, ids: Sequence[int]) -> Logits:
    """Logits of every position, each token decoded singly: (len(ids), vocab)."""
    cache = model.new_cache()
    return np.stack([model.decoder.step(cache, token) for token in ids])


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Log-probabilities of each row in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normed: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normed


def mean_kl(reference: Logits, logits: Logits) -> float:
    """KL divergence of the second from the first distribution: nats, mean over rows."""
    first, second = log_softmax(reference), log_softmax(logits)
    return float((np.exp(first) * (first - second)).sum(axis=-1).mean())


def changed_argmax(reference: Logits, logits: Logits) -> float:
    """The share of rows whose likeliest id differs."""
    return float((reference.argmax(axis=-1) != logits.argmax(axis=-1)).mean())


def main() -> None:
    """Export in every precision, score the text, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="fidelity")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--bytes", type=int, default=20_000)
    args = parser.parse_args()
    text = args.text.read_bytes()[: args.bytes].decode("utf-8", "ignore")
    reference: Logits | None = None
    print("| precision | KV cache | KL to float32 | argmax changed | one by one: KL | changed |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            bundle = Path(folder) / precision
            export(args.checkpoint, bundle, ExportOptions(precision=precision, kv_cache="int8"))
            for kv_cache in KV_CACHE_TYPES:
                with Model.load(bundle, kv_cache=kv_cache, keep_packed=False) as model:
                    ids = model.tokenizer.encode(text)
                    logits = score_windows(model, ids)
                    steps = score_one_by_one(model, ids[:WINDOW])
                if reference is None:
                    reference = logits
                whole = logits[:WINDOW]
                print(
                    f"| {precision} | {kv_cache} | {mean_kl(reference, logits):.5f} | "
                    f"{changed_argmax(reference, logits):.2%} | {mean_kl(whole, steps):.5f} | "
                    f"{changed_argmax(whole, steps):.2%} |"
                )


if __name__ == "__main__":
    main()
