"""Checkpoint -> bundle: export a GPT-2 checkpoint to a quantized ONNX bundle."""

from issun.export.errors import CheckpointError, MissingExtraError, TargetError
from issun.export.exporter import export
from issun.export.options import ExportOptions

__all__ = ["CheckpointError", "ExportOptions", "MissingExtraError", "TargetError", "export"]
