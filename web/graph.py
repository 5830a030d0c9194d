"""A bundle's graph for onnxruntime-web and onnxruntime-node."""

from __future__ import annotations

from typing import Any

from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.split_head import split_head

# GroupQueryAttention of release 1.30, the newest of npm, has 16 inputs: one sequence needs no more.
_INPUT = "query_seqlens"


def web_graph(content: bytes) -> bytes:
    """Return the graph for one sequence, whose 8-bit head is computed by integer products.

    It reads the same data file. Without a fast MatMulNBits, WebAssembly takes half of each step
    for the head.
    """
    model = parse_model(content)
    _remove_query_lengths(model.graph)
    split_head(model.graph)
    serialized: bytes = model.SerializeToString()
    return serialized


def has_unpacked_linears(content: bytes) -> bool:
    """Whether any linear layer but the head is a MatMulNBits, which has no WebAssembly kernel."""
    nodes = parse_model(content).graph.node
    return any(n.op_type == "MatMulNBits" and "logits" not in n.output for n in nodes)


def _remove_query_lengths(graph: Any) -> None:
    for node in graph.node:
        if node.op_type == "GroupQueryAttention" and node.input[-1] == _INPUT:
            while node.input[-1] in (_INPUT, ""):
                del node.input[-1]
    for index, value in enumerate(graph.input):
        if value.name == _INPUT:
            del graph.input[index]
            break
