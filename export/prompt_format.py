"""Chooses a bundle's prompt format: the user's, the checkpoint's own, or a published model's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from issun.export.chat_template import (
    NAME,
    find_chat_template,
    make_jinja_template,
    read_source,
)
from issun.export.checkpoint import Checkpoint
from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.export.template import ALPACA, SHIPPED, check_template, load_template, template_file
from issun.runtime.errors import Notify
from issun.runtime.files import user_path
from issun.runtime.manifest import AnyTemplate, JinjaTemplate, Template, Tokens

PLAIN = "plain"

# Published models without a chat template, by the last part of their names.
_BY_NAME = (
    ("line", r"japanese-large-lm-[\d.]+b-instruction-sft"),
    ("rinna", r"japanese-gpt-neox-[\d.]+b-instruction-(sft|ppo)"),
    ("alpaca-japanese", r"alpaca-guanaco-japanese-gpt-1b"),
)
_BASE = r"japanese-large-lm-[\d.]+b|japanese-gpt-neox-[\w.]+|japanese-gpt-1b|japanese-gpt2-\w+"
# By the tokenizer's tokens; a format of one architecture's models has its `model_type`.
_BY_TOKENS = (
    ("alpaca-japanese", "gpt2", ("<s>", "[SEP]")),
    ("chatml", "", ("<|im_start|>", "<|im_end|>")),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A prompt format and why it was chosen; `evidence` is a file, a name, or tokens."""

    template: AnyTemplate
    reason: Literal["asked", "file", "name", "tokens", "none"]
    evidence: object = ""

    def report(self, notify: Notify) -> None:
        """Notify about the format and the reason."""
        values = {"name": self.template.name, "evidence": self.evidence}
        if self.reason == "file":
            notify("prompt format: {name} (from {evidence})", **values)
        elif self.reason == "name":
            notify("prompt format: {name} (recognized by the name {evidence})", **values)
        elif self.reason == "tokens":
            notify("prompt format: {name} (recognized by the tokens {evidence})", **values)
        elif self.reason == "none":
            notify("prompt format: {name} (none was found: the model continues texts)", **values)
        else:
            notify("prompt format: {name}", **values)


def choose_template(checkpoint: Checkpoint, name: str, asked: str | Path | None) -> Chosen:
    """The prompt format for a checkpoint called `name`.

    `asked` is the name of a shipped template or a file. Raises CheckpointError.
    """
    chosen = Chosen(_asked(checkpoint, asked), "asked") if asked else _found(checkpoint, name)
    check_template(chosen.template, checkpoint.tokenizer.spellings)
    return chosen


def _found(checkpoint: Checkpoint, name: str) -> Chosen:
    """The checkpoint's own chat template, or the format that it is recognized to have."""
    for folder in dict.fromkeys((checkpoint.tokenizer.path.parent, checkpoint.folder)):
        if found := find_chat_template(folder):
            path, source = found
            return Chosen(_jinja(checkpoint, NAME, source), "file", path)
    if by_name := _by_name(name, read_json(checkpoint.folder / "config.json")):
        format_name, known = by_name
        return Chosen(_shipped(checkpoint, format_name), "name", known)
    for format_name, family, tokens in _BY_TOKENS:
        fits = family in ("", checkpoint.network.family)
        if fits and checkpoint.tokenizer.spellings.issuperset(tokens):
            return Chosen(_shipped(checkpoint, format_name), "tokens", " ".join(tokens))
    return Chosen(_shipped(checkpoint, PLAIN), "none")


def _by_name(name: str, config: dict[str, Any]) -> tuple[str, str] | None:
    """The format of a published model, and the name that it was recognized by.

    A base model's name counts only as the checkpoint's own: that a config.json has it means that
    the checkpoint was fine-tuned from it.
    """
    origin = config.get("_name_or_path")
    for known in (name, origin if isinstance(origin, str) else ""):
        last = known.rstrip("/").rpartition("/")[2].lower()
        for format_name, pattern in _BY_NAME:
            if re.match(pattern, last):
                return format_name, known
        if known == name and re.fullmatch(_BASE, last):
            return PLAIN, known
    return None


def _asked(checkpoint: Checkpoint, asked: str | Path) -> AnyTemplate:
    if str(asked) in SHIPPED:
        return _shipped(checkpoint, str(asked))
    path = user_path(asked)
    if not path.suffix and not path.exists():
        raise CheckpointError(
            "There is no template {name}: give a file, or one of {known}.",
            name=asked,
            known=", ".join(SHIPPED),
        )
    return _load(checkpoint, path)


def _shipped(checkpoint: Checkpoint, name: str) -> AnyTemplate:
    if name == ALPACA.name:
        return ALPACA
    template = _load(checkpoint, template_file(name))
    if name == PLAIN and isinstance(template, Template):
        return _with_begin(template, checkpoint.tokenizer.tokens)
    return template


def _with_begin(template: Template, tokens: Tokens) -> Template:
    """The template of plain texts, after the tokens that precede raw text."""
    names = {i: token for token, i in tokens.special.items()}
    begin = "".join(names[i] for i in tokens.begin)
    return replace(
        template,
        with_input=begin + template.with_input,
        without_input=begin + template.without_input,
        chat=replace(template.chat, prompt=begin + template.chat.prompt),
    )


def _load(checkpoint: Checkpoint, path: Path) -> AnyTemplate:
    if path.suffix == ".jinja":
        return _jinja(checkpoint, path.stem, read_source(path))
    return load_template(path)


def _jinja(checkpoint: Checkpoint, name: str, source: str) -> JinjaTemplate:
    return make_jinja_template(
        name,
        source,
        roles=checkpoint.tokenizer.roles,
        n_positions=checkpoint.network.n_positions,
    )
