"""Finds a checkpoint's chat template, and probes it for what the manifest states about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.runtime.errors import TemplateError
from issun.runtime.files import as_utf8, reason_of
from issun.runtime.manifest import JinjaTemplate
from issun.runtime.text.jinja import Message, Renderer

NAME = "chat_template"  # of a checkpoint's own
_KEY = "chat_template"
# In the order of transformers; a `.json` is a processor's, and holds one field.
_FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
# Qwen3 and others think before they answer unless this is false; other templates do not read it.
_SWITCHES: dict[str, str | bool] = {"enable_thinking": False}
_PROBE = "\ue8ff"  # a private-use character, which no template writes
_MAX_NEWLINE = 20  # characters of a newline's spelling
_RESERVE = 512  # tokens for an answer, but at most an eighth of the context


def find_chat_template(folder: Path) -> tuple[Path, str] | None:
    """The file in `folder` that has a chat template, and its source; None if there is none.

    Raises CheckpointError for one that is not a text, and for several of which none is the default.
    """
    for path in (folder / name for name in _FILES):
        if path.suffix == ".jinja" and path.is_file():
            return path, read_source(path)
        found = read_json(path).get(_KEY) if path.is_file() else None
        if found:
            return path, _default(found, path)
    return None


def read_source(path: Path) -> str:
    """The text of a template file; raises CheckpointError."""
    try:
        return as_utf8(path.read_bytes()).decode("utf-8")
    except OSError as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(
            "{path} is not a valid template: {reason}", path=path, reason=error
        ) from error


def _default(found: Any, path: Path) -> str:
    """The template itself, or the one named `default`."""
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        raise CheckpointError(
            "{path}: {key} is not a text, nor a list of texts with one named default. Choose a "
            "template with --template.",
            path=path,
            key=_KEY,
        )
    return found


def make_jinja_template(
    name: str, source: str, *, roles: Mapping[str, str], n_positions: int
) -> JinjaTemplate:
    """The template, with the properties that probing finds; `roles` has the tokenizer's tokens.

    Raises CheckpointError if it cannot make a prompt of one message, or leaves the message out.
    """
    names = {f"{role}_token": token for role, token in sorted(roles.items())}
    template = JinjaTemplate(
        name=name,
        source=source,
        variables={**names, **_SWITCHES},
        takes_system=True,
        newline="",
        reserve=max(1, min(_RESERVE, n_positions // 8)),
    )
    with closing(Renderer(template)) as renderer:
        try:
            rendered = renderer.render([_message("user", f"{_PROBE}\n{_PROBE}")])
        except TemplateError as error:
            raise CheckpointError(
                "{reason}. Choose a template with --template.", reason=str(error).rstrip(".")
            ) from error
        if _PROBE not in rendered:
            raise CheckpointError(
                "The prompt template {name} leaves out the message. Choose a template with "
                "--template.",
                name=name,
            )
        return msgspec.structs.replace(
            template, newline=_newline(rendered), takes_system=_takes_system(renderer)
        )


def _takes_system(renderer: Renderer) -> bool:
    """False for a template that refuses a system message, or leaves it out."""
    try:
        rendered = renderer.render([_message("system", _PROBE), _message("user", "a")])
    except TemplateError:
        return False
    return _PROBE in rendered


def _newline(rendered: str) -> str:
    """How the template spells a newline between two probes; empty if it keeps it."""
    found = re.search(f"{_PROBE}(.{{1,{_MAX_NEWLINE}}}?){_PROBE}", rendered, re.DOTALL)
    return "" if found is None or found[1].isspace() else found[1]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
