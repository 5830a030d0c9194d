"""The engines by name; each is imported on demand.

This module must not import ONNX Runtime, which would count in the memory of every engine.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from issun.benchmarks.engines.base import Engine

BUNDLE = "bundle"  # a user's bundle, as opposed to one converted from a checkpoint

ENGINES: dict[str, str] = {
    "issun-int8": "issun:Int8",
    "issun-int8-kv8": "issun:Int8KV8",
    "issun-int4": "issun:Int4",
    "issun-int4-kv8": "issun:Int4KV8",
    "issun-float32": "issun:Float32",
    "torch-float32": "torch:TorchFloat32",
    "torch-bfloat16": "torch:TorchBFloat16",
    "optimum-float32": "optimum:OptimumFloat32",
    "optimum-int8": "optimum:OptimumInt8",
    "ctranslate2-int8": "ctranslate2:CTranslate2Int8",
    "openvino-int8": "openvino:OpenVINOInt8",
    "openvino-int4": "openvino:OpenVINOInt4",
    "llama.cpp-q8_0": "llama:LlamaQ8",
    "llama.cpp-q4_0": "llama:LlamaQ4",
}


def engine_class(name: str) -> type[Engine]:
    """The class of the engine `name`, one of `ENGINES` or `BUNDLE`."""
    module, _, attribute = (ENGINES | {BUNDLE: "issun:Bundle"})[name].partition(":")
    kind: type[Engine] = getattr(import_module(f"issun.benchmarks.engines.{module}"), attribute)
    return kind


def missing_packages(engine: type[Engine]) -> list[str]:
    """The engine's required distributions that are not installed."""
    return [name for name in engine.packages if version_of(name) is None]


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
