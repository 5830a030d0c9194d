"""Generates the tiny graphs in runtime/weights that tell what this CPU's kernels do.

Run `python -m issun.export.probes` to write them; a test checks that the committed files match.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

ROWS, DEPTH, COLUMNS = 4, 64, 16


def saturation_graph() -> ir.Model:
    """A u8 (4, 64) input times an int8 matrix of 127s: sums of two products overflow 16 bits."""
    tape = ir.tape.Tape()
    values = ir.val("values", ir.DataType.UINT8, (ROWS, DEPTH))
    sums = ir.val("sums", ir.DataType.INT32, (ROWS, COLUMNS))
    weight = ir.tensor(np.full((DEPTH, COLUMNS), 127, np.int8), name="weight")
    tape.op("MatMulInteger", [values, tape.initializer(weight)], output=sums)
    return _model("saturation", tape, values, sums)


def rounding_graph() -> ir.Model:
    """A float32 (1, 64) input times an 8-bit matrix of ones, in one block of 64."""
    tape = ir.tape.Tape()
    values = ir.val("values", ir.DataType.FLOAT, (1, DEPTH))
    sums = ir.val("sums", ir.DataType.FLOAT, (1, COLUMNS))
    weight = ir.tensor(np.full((COLUMNS, 1, DEPTH), 128 + 1, np.uint8), name="weight")
    scales = ir.tensor(np.ones((COLUMNS, 1), np.float32), name="scales")
    tape.op(
        "MatMulNBits",
        [values, tape.initializer(weight), tape.initializer(scales)],
        {"K": DEPTH, "N": COLUMNS, "bits": 8, "block_size": DEPTH, "accuracy_level": 4},
        domain="com.microsoft",
        output=sums,
    )
    return _model("rounding", tape, values, sums)


def _model(name: str, tape: ir.tape.Tape, values: ir.Value, sums: ir.Value) -> ir.Model:
    graph = ir.Graph(
        [values],
        [sums],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 21, "com.microsoft": 1},
        name=name,
    )
    return ir.Model(graph, ir_version=10, producer_name="issun")


if __name__ == "__main__":
    folder = Path(__file__).parent.parent / "runtime" / "weights"
    for graph in (saturation_graph(), rounding_graph()):
        path = folder / f"{graph.graph.name}.onnx"
        ir.save(graph, path)
        print(path)
