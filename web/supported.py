"""Which bundles run in a browser: those whose answers were compared with Python's."""

from __future__ import annotations

from pathlib import Path

from sentencepiece import sentencepiece_model_pb2

from issun.runtime.manifest import Manifest, Template
from issun.web.errors import WebError

_FAMILIES = ("gpt2",)
_UNIGRAM = 1  # TrainerSpec.ModelType


def check_supported(folder: Path, manifest: Manifest) -> None:
    """Raise WebError with the reason unless the bundle's answers in a browser are Python's."""
    _check_graph(folder, manifest)
    if not isinstance(manifest.prompt, Template):
        raise WebError(
            "{folder} cannot run in a browser: its chat template is in Jinja.", folder=folder
        )
    if manifest.tokens.kind != "t5" or manifest.tokens.added or not manifest.tokens.legacy:
        raise WebError(
            "{folder} cannot run in a browser: only the plain T5Tokenizer is supported there, "
            "without added tokens.",
            folder=folder,
        )
    _check_pieces(folder, manifest)


def _check_graph(folder: Path, manifest: Manifest) -> None:
    if manifest.graph != "issun" or manifest.architecture.family not in _FAMILIES:
        raise WebError(
            "{folder} cannot run in a browser: only GPT-2 models that issun has exported itself "
            "have been compared with Python.",
            folder=folder,
        )
    if manifest.precision.name == "float32":
        raise WebError(
            "{folder} cannot run in a browser: its precision is float32, which is too large and "
            "too slow there. Export it as int8.",
            folder=folder,
        )


def _check_pieces(folder: Path, manifest: Manifest) -> None:
    content = (folder / manifest.tokens.file).read_bytes()
    model = sentencepiece_model_pb2.ModelProto.FromString(content)  # type: ignore[attr-defined]
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    unusual = trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces
    if trainer.model_type != _UNIGRAM or trainer.byte_fallback or unusual:
        raise WebError(
            "{folder} cannot run in a browser: only SentencePiece's unigram models without byte "
            "fallback are supported there.",
            folder=folder,
        )
