"""Generates runtime/saturation.onnx, which tells the runtime if int8 sums saturate on this CPU.

Run `python -m issun.export.saturation` to write it; a test checks that the committed file matches.
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
    graph = ir.Graph(
        [values],
        [sums],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 21},
        name="saturation",
    )
    return ir.Model(graph, ir_version=10, producer_name="issun")


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "runtime" / "saturation.onnx"
    ir.save(saturation_graph(), path)
    print(path)
