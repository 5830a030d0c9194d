"""How fast a linear layer is in each precision.

`python -m issun.benchmarks.kinds [--rounds 9]` prints picoseconds of one thread per weight and
token of a linear layer of 2048 x 8192: for 128 tokens in a call, as in prefill, and for one, as in
decoding. Precisions take turns; each figure is the fastest of the rounds. It is CPU time, so that
other programs disturb little.
The chooser of mixed precision has the figures for prefill (`issun.export.mixed`).
"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from issun.export.graph import IR_VERSION, OPSET, DecoderBuilder
from issun.export.kinds import KINDS, Kind, Precision
from issun.export.quantization_loss import quantize_linear
from issun.runtime.weights.session import make_options, session_of

WIDTH, OUT, TOKENS = 2048, 8192, (128, 1)
_FLOAT = ir.DataType.FLOAT


class _OneLinear:
    """A WeightSource with one linear layer of random weights."""

    precision: Precision = "mixed"

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        weight = np.random.default_rng(0).normal(size=(WIDTH, OUT)).astype(np.float32)
        self._found: dict[str, Any] = {"linear.weight": weight}
        if kind != "float32":
            quantized = quantize_linear(weight, kind)
            self._found = {"linear.weight": quantized.values, "linear.scale": quantized.scales}

    def kind(self, base: str) -> Kind:
        return self._kind

    def tensor(self, name: str) -> ir.TensorProtocol:
        return ir.tensor(self._found[name], name=name)

    def linear_shape(self, name: str) -> tuple[int, int]:
        return WIDTH, OUT

    def has(self, name: str) -> bool:
        return name in self._found

    def floor(self, base: str) -> float | None:
        return None

    def outlier_channels(self, base: str) -> None:
        return None


def open_linear(kind: Kind) -> ort.InferenceSession:
    """A session from x (tokens, 2048) to the linear layer's product."""
    builder = DecoderBuilder(cast(Any, None), _OneLinear(kind), None)
    x = ir.val("x", _FLOAT, ("tokens", WIDTH))
    y = builder.affine(x, "linear")
    y.dtype = _FLOAT
    graph = ir.Graph(
        [x],
        [y],
        nodes=builder.tape.nodes,
        initializers=builder.tape.initializers,
        opset_imports={"": OPSET, "com.microsoft": 1},
        name="linear",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    return session_of(model.SerializeToString(), make_options(1))


def measure(rounds: int) -> dict[Kind, list[float]]:
    """Picoseconds per weight and token of each precision, for each number of tokens."""
    sessions = {kind: open_linear(kind) for kind in KINDS}
    rng = np.random.default_rng(1)
    found: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for tokens in TOKENS:
        x = rng.normal(size=(tokens, WIDTH)).astype(np.float32)
        fastest = dict.fromkeys(KINDS, float("inf"))
        for _ in range(rounds):
            for kind, session in sessions.items():
                started = time.thread_time()
                session.run(None, {"x": x})
                fastest[kind] = min(fastest[kind], time.thread_time() - started)
        for kind in KINDS:
            found[kind].append(fastest[kind] * 1e12 / (WIDTH * OUT * tokens))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    found = measure(parser.parse_args().rounds)
    print(f"{'':12}" + "".join(f"{tokens:>10}" for tokens in TOKENS))
    for kind, times in found.items():
        print(f"{kind:12}" + "".join(f"{value:10.2f}" for value in times))


if __name__ == "__main__":
    main()
