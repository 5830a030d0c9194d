"""What engines that fit their weights to a text are given: issun's own calibration ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.export.calibrate import (
    NUM_WINDOWS_GPTQ,
    calibration_ids,
    cut_windows,
    read_calibration_text,
)
from issun.export.lazy import CheckpointWeights
from issun.export.observe import Block
from issun.export.prompt_format import choose_template
from issun.export.source import open_source
from issun.export.weights import Array


def calibration_windows(checkpoint: Path, text: Path | None) -> NDArray[np.int64]:
    """The ids that GPTQ is fitted to, of `text` or of the text in the package: (window, position).

    Raises CheckpointError, OSError and UnicodeDecodeError.
    """
    located, found, _ = open_source(str(checkpoint))
    template = choose_template(found, located.name, None).template
    content = read_calibration_text(text)
    tokenizer = found.tokenizer.open()
    ids = calibration_ids(found.network, tokenizer, template, content, windows=NUM_WINDOWS_GPTQ)
    return cut_windows(found.network, ids)


def input_mean_squares(checkpoint: Path, text: Path | None) -> dict[str, Array]:
    """The mean square of each input channel of each linear layer, by name: (in,).

    It is the importance matrix of llama.cpp (its tool `llama-imatrix` collects the same sums),
    which does not include embedding and head.
    """
    _, found, _ = open_source(str(checkpoint))
    weights = CheckpointWeights(found.network, found.tensors, "float32")
    x = weights.embed(calibration_windows(checkpoint, text))
    means = {}
    for layer in range(found.network.n_layer):
        seen = Block(weights, layer).run(x)
        for name, rows in seen.inputs.items():
            squares = np.square(rows, dtype=np.float64)
            means[f"h.{layer}.{name}"] = squares.mean(axis=(0, 1)).astype(np.float32)
        x = seen.output
    return means
