"""A bundle's graph for onnxruntime-web and onnxruntime-node."""

from __future__ import annotations

from typing import Any

from issun.runtime.weights.split_head import split_head

# GroupQueryAttention of release 1.30, the newest of npm, has 16 inputs: one sequence needs no more.
_INPUT = "query_seqlens"


def adapt(graph: Any) -> None:
    """Change a graph to take one sequence, and to compute its 8-bit head by integer products.

    It reads the same data file. Without a fast MatMulNBits, WebAssembly takes half of each step
    for the head.
    """
    _remove_query_lengths(graph)
    split_head(graph)


def linears_in_blocks(graph: Any) -> list[Any]:
    """Return the linear layers but the head that are MatMulNBits: WebAssembly has no kernel."""
    return [n for n in graph.node if n.op_type == "MatMulNBits" and "logits" not in n.output]


def _remove_query_lengths(graph: Any) -> None:
    for node in graph.node:
        if node.op_type == "GroupQueryAttention" and node.input[-1] == _INPUT:
            while node.input[-1] in (_INPUT, ""):
                del node.input[-1]
    for index, value in enumerate(graph.input):
        if value.name == _INPUT:
            del graph.input[index]
            break
