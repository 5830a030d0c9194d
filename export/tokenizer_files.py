"""The tokenizer files of a checkpoint, and warnings about unsupported settings in them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.runtime.errors import Notify

TOKENIZER_FILES = ("spiece.model", "sentencepiece.model", "tokenizer.model")
TOKENIZER_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",  # only its list of added tokens is read
)
# Other kinds of tokenizers; tokenizer.json may have been converted from a SentencePiece file.
_OTHERS = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
_CLASSES = (None, "T5Tokenizer", "T5TokenizerFast")
# Where transformers stores a chat template: a file of its own, or a field of the tokenizer config.
_CHAT, _CHAT_FILES = "chat_template", ("chat_template.jinja", "chat_template.json")


def sentencepiece_file(folder: str | Path, names: Collection[str]) -> str:
    """The SentencePiece file among the `names` in `folder`.

    Raises CheckpointError, which says which file to add or how to name another tokenizer.
    """
    expected = ", ".join(TOKENIZER_FILES)
    if found := next((name for name in TOKENIZER_FILES if name in names), None):
        return found
    if others := [name for name in _OTHERS if name in names]:
        raise CheckpointError(
            "{folder} has {others} but no SentencePiece tokenizer: expected one of {names}. Copy "
            "the file that the tokenizer was converted from, or name a folder or hub id that has "
            "it with --tokenizer.",
            folder=folder,
            others=", ".join(others),
            names=expected,
        )
    raise CheckpointError(
        "{folder} has no SentencePiece tokenizer: expected one of {names}. Copy the file from the "
        "base model, or name a folder or hub id that has it with --tokenizer.",
        folder=folder,
        names=expected,
    )


def report_unsupported(folder: Path, prompts: str | None, notify: Notify) -> None:
    """Notify about unsupported settings in `folder` that change token ids or prompts.

    `prompts` names the default template in use; None if the user has given a template.
    """
    config = folder / "tokenizer_config.json"
    for path in (config, folder / "config.json"):
        name = read_json(path).get("tokenizer_class") if path.is_file() else None
        if name not in _CLASSES:
            notify(
                "{path}: tokenizer_class is {name}, but issun tokenizes as T5Tokenizer does: "
                "token ids may differ.",
                path=path,
                name=name,
            )
        if name is not None:
            break
    found = [path for path in (folder / file for file in _CHAT_FILES) if path.is_file()]
    if config.is_file() and read_json(config).get(_CHAT):
        found.append(config)
    if found and prompts is not None:
        notify(
            "{path}: chat_template is ignored; prompts use the template {name}. Give another with "
            "--template FILE.",
            path=found[0],
            name=prompts,
        )
