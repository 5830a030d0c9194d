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
    "llama.cpp-q8_0": "llama:Q8_0",
    "llama.cpp-q4_0": "llama:Q4_0",
}
_LLAMA_TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "IQ4_NL", "Q4_0")
# What `issun bench fidelity --peers` compares with; Q8_0 makes no use of an importance matrix.
PEERS: dict[str, str] = {
    **{f"llama.cpp-{kind.lower()}": f"llama:{kind}" for kind in _LLAMA_TYPES},
    **{f"llama.cpp-{kind.lower()}-imatrix": f"llama:{kind}_imatrix" for kind in _LLAMA_TYPES[1:]},
    "openvino-int8": "openvino:OpenVINOInt8",
    "openvino-int4": "openvino:OpenVINOInt4",
    "openvino-int4-fitted": "openvino:OpenVINOInt4Fitted",
    "ctranslate2-int8": "ctranslate2:CTranslate2Int8",
}


def engine_class(name: str) -> type[Engine]:
    """The class of the engine `name`, one of `ENGINES`, `PEERS` or `BUNDLE`."""
    found = {BUNDLE: "issun:Bundle"} | ENGINES | PEERS
    module, _, attribute = found[name].partition(":")
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
