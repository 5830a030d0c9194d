"""Which bundles run in a browser: those whose answers were compared with Python's."""

from __future__ import annotations

from pathlib import Path

from issun.runtime.manifest import Manifest
from issun.web.errors import WebError
from issun.web.tokenizers import check_tokenizer

_FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")


def check_supported(folder: Path, manifest: Manifest) -> None:
    """Raise WebError with the reason unless the bundle's answers in a browser are Python's."""
    _check_graph(folder, manifest)
    check_tokenizer(folder, manifest.tokens)


def _check_graph(folder: Path, manifest: Manifest) -> None:
    if manifest.graph != "issun" or manifest.architecture.family not in _FAMILIES:
        raise WebError(
            "{folder} cannot run in a browser: only models of the usual families that issun has "
            "exported itself have been compared with Python.",
            folder=folder,
        )
    if manifest.precision.name == "float32":
        raise WebError(
            "{folder} cannot run in a browser: its precision is float32, which is too large and "
            "too slow there. Export it as int8.",
            folder=folder,
        )
