"""Prompts of slot templates as text, for programs that take no ids."""

from __future__ import annotations

from issun.runtime.manifest import Template
from issun.runtime.text.slot_template import fill, placeholder_values


def render(template: Template, instruction: str, input_text: str | None) -> str:
    """Render the prompt as text; encoded with special tokens it has the ids of PromptBuilder.

    This holds only if the values have no special tokens, which would count as such here.
    """
    pattern = template.without_input if input_text is None else template.with_input
    return fill(pattern, placeholder_values(template, instruction, input_text))
