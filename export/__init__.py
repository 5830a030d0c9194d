"""Export a checkpoint as a bundle: a quantized ONNX graph, its tokenizer and a manifest."""

from issun.export.errors import CheckpointError, MissingExtraError, TargetError
from issun.export.exporter import export, frontier
from issun.export.frontier import Point
from issun.export.options import AdapterSource, ExportOptions

__all__ = [
    "AdapterSource",
    "CheckpointError",
    "ExportOptions",
    "MissingExtraError",
    "Point",
    "TargetError",
    "export",
    "frontier",
]
