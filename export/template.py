"""Prompt templates: the published one as the default, others from a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from issun.export.errors import CheckpointError
from issun.runtime.manifest import ChatRules, Template

# The alpaca format of inu-ai's Japanese models, a newline spelled as backslash + n.
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


def load_template(path: Path) -> Template:
    """Read a template from a JSON file with the fields of `prompt` in `issun.json`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Template)
    except OSError as error:
        raise CheckpointError("{path} cannot be read: {reason}", path=path, reason=error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError("{path} is no template: {reason}", path=path, reason=error) from error


def check_template(template: Template, special: dict[str, int]) -> None:
    """Raise CheckpointError when the tokenizer lacks a special token that the template has.

    A special token is what stands in the template as `<...>` or `[...]`.
    """
    text = template.with_input + template.without_input
    wanted = {"[SEP]", "<s>", "</s>", "[CLS]", "[PAD]", "[MASK]"}
    missing = sorted(token for token in wanted if token in text and token not in special)
    if missing:
        raise CheckpointError(
            "The tokenizer has no {missing}, which the prompt template {name} needs: "
            "give another template with `--template FILE`.",
            missing=", ".join(missing),
            name=template.name,
        )
