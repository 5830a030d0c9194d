"""A Japanese GPT-2 chat model on a laptop's CPU; the Python API is `issun.runtime`."""

from __future__ import annotations

import os

# ONNX Runtime reports to its maker from the moment it is imported. Nothing leaves this machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__: str


def __getattr__(name: str) -> str:
    # The metadata is read when it is asked for, so that `import issun` costs nothing.
    if name != "__version__":
        raise AttributeError(f"module 'issun' has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415

    return version("issun")
