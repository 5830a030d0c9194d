"""The tokenizer files of a checkpoint, and warnings about unsupported settings in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.runtime.errors import Notify
from issun.runtime.manifest import TokenizerKind

SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.model", "tokenizer.model")
FAST_FILE = "tokenizer.json"
TOKENIZER_FILES = (*SENTENCEPIECE_FILES, FAST_FILE)
TOKENIZER_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    FAST_FILE,  # beside a SentencePiece file that is read, only its list of added tokens counts
)
_OTHERS = ("vocab.json", "merges.txt", "vocab.txt")  # of tokenizers that issun does not read
_SLOW: dict[str, TokenizerKind] = {"T5Tokenizer": "t5", "LlamaTokenizer": "llama"}
# The class of a checkpoint that does not name one, by `model_type`: with a SentencePiece file, and
# with a tokenizer.json. Source: `TOKENIZER_MAPPING_NAMES` in transformers 4.57.
_UNNAMED = {
    "gpt2": ("T5Tokenizer", "GPT2Tokenizer"),
    "gpt_neox": ("T5Tokenizer", "GPTNeoXTokenizer"),
    "llama": ("LlamaTokenizer", "LlamaTokenizer"),
    "mistral": ("LlamaTokenizer", "LlamaTokenizer"),
    "qwen2": ("Qwen2Tokenizer", "Qwen2Tokenizer"),
    "qwen3": ("Qwen2Tokenizer", "Qwen2Tokenizer"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The tokenizer's file, its kind, and its class in transformers without "Fast"."""

    file: str
    kind: TokenizerKind
    name: str


def choose_tokenizer(folder: Path) -> Choice:
    """Choose the tokenizer file in `folder` as transformers' AutoTokenizer does.

    That is tokenizer.json, except beside the SentencePiece file of a T5Tokenizer: such models are
    published with the advice to open the slow class. Raises CheckpointError if there is no file.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    check_tokenizer_files(folder, names)
    spiece = next((name for name in SENTENCEPIECE_FILES if name in names), None)
    _, named = _named_class(folder)
    slow, fast = _UNNAMED.get(_model_type(folder), ("T5Tokenizer", ""))
    if spiece and (FAST_FILE not in names or (named or slow) == "T5Tokenizer"):
        name = (named or slow).removesuffix("Fast")
        return Choice(spiece, _SLOW.get(name, "t5"), name)
    return Choice(FAST_FILE, "json", (named or fast).removesuffix("Fast"))


def check_tokenizer_files(folder: str | Path, names: Collection[str]) -> None:
    """Raise CheckpointError unless one of the `names` in `folder` is a tokenizer's file.

    The error says which file to add, or how to name another tokenizer.
    """
    expected = ", ".join(TOKENIZER_FILES)
    if not set(TOKENIZER_FILES).isdisjoint(names):
        return
    if others := [name for name in _OTHERS if name in names]:
        raise CheckpointError(
            "{folder} has {others} but no tokenizer that issun reads: expected one of {names}. "
            "Save the tokenizer as tokenizer.json with transformers, or name a folder or hub id "
            "that has it with --tokenizer.",
            folder=folder,
            others=", ".join(others),
            names=expected,
        )
    raise CheckpointError(
        "{folder} has no tokenizer: expected one of {names}. Copy the file from the base model, or "
        "name a folder or hub id that has it with --tokenizer.",
        folder=folder,
        names=expected,
    )


def report_tokenizer(folder: Path, choice: Choice, notify: Notify) -> None:
    """Notify about settings in `folder` that give other ids or texts with transformers."""
    path, _ = _named_class(folder)
    if _SLOW.get(choice.name) != choice.kind and choice.kind != "json":
        notify(
            "{path}: tokenizer_class is {name}, but issun tokenizes as T5Tokenizer does: "
            "token ids may differ.",
            path=path,
            name=choice.name,
        )
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.is_file() else {}
    if settings.get("clean_up_tokenization_spaces"):
        notify(
            "{path}: clean_up_tokenization_spaces is ignored: answers keep the spaces that the "
            "model writes in front of punctuation.",
            path=config,
        )
    if settings.get("add_eos_token"):
        notify(
            "{path}: add_eos_token is ignored: no end token is added to a prompt, which the answer "
            "continues.",
            path=config,
        )


def _named_class(folder: Path) -> tuple[Path, str | None]:
    """The tokenizer class that the files in `folder` name, and the file that does."""
    config = folder / "config.json"
    for path in (folder / "tokenizer_config.json", config):
        name = read_json(path).get("tokenizer_class") if path.is_file() else None
        if isinstance(name, str):
            return path, name
    return config, None


def _model_type(folder: Path) -> str:
    config = folder / "config.json"
    return str(read_json(config).get("model_type")) if config.is_file() else ""
