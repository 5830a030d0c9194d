"""Prompt templates: those of published models, and templates from a file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from issun.export.errors import CheckpointError
from issun.runtime.checks import template_faults
from issun.runtime.files import as_utf8, reason_of
from issun.runtime.manifest import AnyTemplate, ChatRules, JinjaTemplate, Template

# The Alpaca format of inu-ai's Japanese models, in which a newline is a backslash and an n.
ALPACA = Template(
    name="alpaca-japanese",
    with_input=(
        r"<s>\n以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。"
        r"要求を適切に満たす応答を書きなさい。"
        r"\n[SEP]\n指示:\n{instruction}\n[SEP]\n入力:\n{input}\n[SEP]\n応答:\n"
    ),
    without_input=(
        r"<s>\n以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。"
        r"\n[SEP]\n指示:\n{instruction}\n[SEP]\n応答:\n"
    ),
    newline=r"\n",
    chat=ChatRules(
        role_line=r"{line}\n",
        history_separator=r"\n",
        user="User:{message}",
        assistant="Assistant:{message}",
        empty_instruction="",
        system=("User:{system}", "Assistant:了解しました。"),
        reserve=100,
    ),
)


# The formats of published models; `--template` takes their names.
_FOLDER = Path(__file__).with_name("templates")
_FILES = {
    "line": "line.json",
    "rinna": "rinna.json",
    "chatml": "chatml.jinja",
    "plain": "plain.json",
}
SHIPPED = (ALPACA.name, *_FILES)


def template_file(name: str) -> Path:
    """The file of a template that is shipped, except `alpaca-japanese`."""
    return _FOLDER / _FILES[name]


def load_template(path: Path) -> AnyTemplate:
    """Read a template from a JSON file with the fields of `prompt` in `issun.json`."""
    try:
        raw = as_utf8(path.read_bytes())
        kind = msgspec.json.decode(raw, type=_KindOnly).kind
        if kind == "jinja":
            return msgspec.json.decode(raw, type=JinjaTemplate)
        return msgspec.json.decode(raw, type=Template)
    except OSError as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            "{path} is not a valid template: {reason}", path=path, reason=error
        ) from error


class _KindOnly(msgspec.Struct):
    kind: str = "slots"  # files of earlier versions do not state it


def check_template(template: AnyTemplate, known: Collection[str]) -> None:
    """Raise CheckpointError for wrong placeholders, or special tokens that are not `known`."""
    if faults := template_faults(template, known):
        raise CheckpointError(
            "The prompt template {name} is invalid: {faults}. Correct it, or give another with "
            "`--template FILE`.",
            name=template.name,
            faults="; ".join(faults),
        )
