"""Errors for modules that need an extra, such as `pip install "issun[server]"`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from issun.cli.interrupts import exit_on_interrupt, raise_on_interrupt
from issun.runtime.errors import IssunError

# The modules of the optional dependencies, and the smallest extra that installs each.
EXTRAS = {
    "jinja2": "models",
    "tokenizers": "models",
    "huggingface_hub": "export",
    "ml_dtypes": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    "threadpoolctl": "export",
    "optimum": "optimum",
    "accelerate": "train",
    "peft": "train",
    "torch": "train",
    "transformers": "train",
    "pyarrow": "parquet",
    "ray": "cluster",
    "cpuinfo": "bench",
    "llguidance": "server",
    "prometheus_client": "server",
    "starlette": "server",
    "uvicorn": "server",
    "ctranslate2": "peers",
    "gguf": "peers",
    "llama_cpp": "peers",
    "nncf": "peers",
    "openvino": "peers",
}


@contextmanager
def needs_extra(message: str) -> Iterator[None]:
    """Turn a missing module into the error `message`, whose field is `{module}`; wraps imports.

    Meanwhile Ctrl-C kills the process, since an interrupted import may raise any error.
    """
    exit_on_interrupt()
    try:
        yield
    except ModuleNotFoundError as error:
        raise IssunError(message, module=error.name) from error
    finally:
        raise_on_interrupt()


def missing_extra(error: ModuleNotFoundError) -> IssunError | None:
    """The error that names the extra of a missing module; None for other modules."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return IssunError(
        '{module} is not installed: pip install "issun[{extra}]"',
        module=module,
        extra=EXTRAS[module],
    )
