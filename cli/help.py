"""Help in the reader's language, wrapped by display width: wide characters take two columns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from issun.cli.usage import translate
from issun.cli.wrapping import columns, wrap

_EXTRAS = re.compile(r"(.*?)(?:(?:^|  )\[([^][]*)\])?", re.DOTALL)
_DESCRIBED = re.compile(r"default: \((.*)\)")  # click puts a text into brackets


_Context: Any = TyperCommand.context_class
_HelpFormatter: Any = _Context.formatter_class


class Formatter(_HelpFormatter):  # type: ignore[misc]
    """Writes the parts of a help page, of which click measures characters in place of columns."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write `Usage: prog args`."""
        self._write_entry(f"{translate('Usage:')} {prog}", args)

    def write_heading(self, heading: str) -> None:
        """Write the heading of a section."""
        super().write_heading(translate(heading))

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        paragraphs = [self._wrapped(paragraph, 0) for paragraph in text.split("\n\n")]
        self.write("\n\n".join(paragraphs) + "\n")

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write names with their descriptions in a second column."""
        rows = list(rows)
        column = min(max(columns(name) for name, _ in rows), col_max) + col_spacing
        for name, text in rows:
            self._write_entry(name, _translate_extras(text), column)

    def _write_entry(self, name: str, text: str, column: int | None = None) -> None:
        """Write `name`, and `text` from `column` on, in the same line if `name` is short enough."""
        column = columns(name) + 1 if column is None else column
        body = self._wrapped(text, column)
        start = " " * self.current_indent + name
        fits = columns(name) < column
        self.write((start + body[columns(start) :] if fits else f"{start}\n{body}").rstrip() + "\n")

    def _wrapped(self, text: str, column: int) -> str:
        indent = " " * (self.current_indent + column)
        lines = wrap(" ".join(text.split("\n")), max(self.width - len(indent), 20))
        return "\n".join(indent + line for line in lines)


def _translate_extras(text: str) -> str:
    """A description whose `[default: …; required]` the parser has written."""
    description, extras = _EXTRAS.fullmatch(text).groups()  # type: ignore[union-attr]
    shown = [translate(description)] if description else []
    if extras:
        parts = [_DESCRIBED.sub(r"default: \1", part) for part in extras.split("; ")]
        shown.append(f"[{'; '.join(map(translate, parts))}]")
    return "  ".join(shown)


def _translate_usage(pieces: Iterable[str]) -> list[str]:
    """The pieces without the braces of a required argument, which look like a choice."""
    return [translate(piece.strip("{}")) for piece in pieces]


class _HelpContext(_Context):  # type: ignore[misc]
    formatter_class = Formatter


class Command(TyperCommand):
    """A subcommand whose help is translated and wrapped as above."""

    context_class = _HelpContext

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name in its usage."""
        return _translate_usage(super().collect_usage_pieces(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options under the headings of their groups."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            heading = getattr(param, "rich_help_panel", None) or "Options"
            if param.param_type_name == "argument":
                heading = "Arguments"
            if record := param.get_help_record(ctx):
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """A command with subcommands, likewise."""

    context_class = _HelpContext

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name in its usage."""
        return _translate_usage(super().collect_usage_pieces(ctx))
