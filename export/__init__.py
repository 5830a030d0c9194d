"""Export a checkpoint as a bundle: a quantized ONNX graph, its tokenizer and a manifest."""

from issun.export.errors import CheckpointError, MissingExtraError, TargetError
from issun.export.exporter import export, frontier
from issun.export.frontier import Point
from issun.export.options import ExportOptions

__all__ = [
    "CheckpointError",
    "ExportOptions",
    "MissingExtraError",
    "Point",
    "TargetError",
    "export",
    "frontier",
]
