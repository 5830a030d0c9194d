"""Compares every precision and KV cache type of a checkpoint with float32, on a text.

`python -m issun.benchmarks.precisions CHECKPOINT --text FILE [--bytes 20000]`

KL divergences are in nats, means over positions. The "step by step" columns compare decoding one
token at a time with a single forward pass.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from issun.benchmarks.divergence import WINDOW, Logits, changed_argmax, mean_kl, score_windows
from issun.export import ExportOptions, export
from issun.export.kinds import PRECISIONS
from issun.runtime import Model
from issun.runtime.files import as_utf8
from issun.runtime.manifest import KV_CACHE_TYPES


def score_step_by_step(model: Model, ids: Sequence[int]) -> Logits:
    """Logits of every position, decoding one token at a time: (len(ids), vocab)."""
    cache = model.new_cache()
    return np.stack([model.decoder.step(cache, token) for token in ids])


def main() -> None:
    """Export in every precision, score the text and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="precisions")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--bytes", type=int, default=20_000)
    args = parser.parse_args()
    text = as_utf8(args.text.read_bytes())[: args.bytes].decode("utf-8", "ignore")
    reference: Logits | None = None
    print("| precision | KV cache | KL to float32 | argmax changed | step by step: KL | changed |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            bundle = Path(folder) / precision
            export(args.checkpoint, bundle, ExportOptions(precision=precision, kv_cache="int8"))
            for kv_cache in KV_CACHE_TYPES:
                with Model.load(bundle, kv_cache=kv_cache, keep_packed=False) as model:
                    ids = model.encode(text)
                    logits = score_windows(model, ids)
                    steps = score_step_by_step(model, ids[:WINDOW])
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
