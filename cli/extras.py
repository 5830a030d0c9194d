"""What an entry point needs beyond the plain installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from issun.cli.interrupts import end_at_once, raise_interrupts
from issun.runtime.errors import IssunError

# What the distributions of pyproject.toml's extras are imported as, and the smallest extra.
EXTRAS = {
    "huggingface_hub": "export",
    "ml_dtypes": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    "optimum": "optimum",
    "accelerate": "train",
    "pyarrow": "train",
    "torch": "train",
    "transformers": "train",
    "cpuinfo": "bench",
    "matplotlib": "bench",
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
    """Around imports: a `{module}` that is missing becomes the error `message`.

    Ctrl-C ends the process meanwhile, where it would break an import half way.
    """
    end_at_once()
    try:
        yield
    except ModuleNotFoundError as error:
        raise IssunError(message, module=error.name) from error
    finally:
        raise_interrupts()


def missing_extra(error: ModuleNotFoundError) -> IssunError | None:
    """The error that names the extra which a missing module comes with; None for another module."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return IssunError(
        "{module} is not installed: pip install 'issun[{extra}]'",
        module=module,
        extra=EXTRAS[module],
    )
