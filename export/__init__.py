"""Export a GPT-2 checkpoint as a bundle: a quantized ONNX graph, its tokenizer and a manifest."""

from issun.export.errors import CheckpointError, MissingExtraError, TargetError
from issun.export.exporter import export
from issun.export.options import ExportOptions

__all__ = ["CheckpointError", "ExportOptions", "MissingExtraError", "TargetError", "export"]
