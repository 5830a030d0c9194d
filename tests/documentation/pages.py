"""The code blocks of README and docs, and how their annotations say that each is tested.

An annotation is an HTML comment just above the block; readers do not see it:

    <!-- run: WORDS -->      how the block below is run; words are separated by "; ":
        no; REASON                 not run; its options are checked instead
        extra=NAME,...             in the environment of these extras (none: plain issun)
        packages=NAME,...          with these packages beside issun
        replace OLD=NEW            with OLD replaced; NEW may be $CHECKPOINT, $BUNDLE, $ADAPTER
        stdin=TEXT                 TEXT is typed into it; \\n is a newline
        shows TEXT                 TEXT must be in its output
        fails                      it must end with an error
        continue                   Python: behind the page's blocks before, which share its names
        background                 it stays running until the page ends: a server
        checkout                   in a copy of the repository
        slow                       it takes more than some ten seconds
    <!-- file: NAME -->      the block is not run but written to this file
    <!-- setup: COMMAND -->  a command that is run before the block
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("sh", "python")  # languages that are run
CHECKED = (*RUN, "powershell", "bat")  # languages whose `issun` options are checked
# Other names of these, and no name at all: a block must not go untested because of its name.
_OTHERS = {"bash", "shell", "zsh", "console", "pycon", "py", "python3", "ps1", "cmd", "batch", ""}

_NOTE = r"^[ ]*<!-- (?:run|file|setup): .*? -->[ ]*\n"
_BLOCK = re.compile(
    rf"(?P<notes>(?:{_NOTE}(?:[ ]*\n)*)*)"
    r"^(?P<indent>[ ]*)(?P<fence>```+|~~~+)[ ]*(?P<language>\w*)[^\n`]*\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence)[ ]*$",
    re.M | re.S,
)
_INSTALL = re.compile(r"^\s*(?:(?:python3?|py) -m )?(?:uv )?pip install (?P<what>.*)$", re.M)
_OURS = re.compile(r"(?:\.|issun)(?:\[(?P<extras>[\w,]+)\])?")


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed: issun with these extras, and packages beside it."""

    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __str__(self) -> str:
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return " ".join((f"issun{extras}", *self.packages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code, where it stands, and what its annotations say."""

    page: Path
    line: int
    language: str
    code: str  # without the lines that install, which choose the environment instead
    environment: Environment = field(default_factory=Environment)
    reason: str | None = None  # why it is not run
    file: str | None = None
    setup: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()
    stdin: str = ""
    shows: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """`README.md:12`."""
        inside = self.page.is_relative_to(ROOT)
        return f"{self.page.relative_to(ROOT) if inside else self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.language in RUN and self.reason is None and self.file is None


_FLAGS = ("fails", "continue", "background", "checkout", "slow")


def all_pages() -> list[Path]:
    """README in its languages, and every page of the documentation."""
    return [*sorted(ROOT.glob("README*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


def other_pages() -> list[Path]:
    """Pages whose commands are not run, but checked against `--help`."""
    run = all_pages()
    return [p for p in sorted([*ROOT.glob("*.md"), *ROOT.glob("examples/*.md")]) if p not in run]


def read_page(page: Path) -> list[Block]:
    """The blocks of a page in order, each with the environment that it needs.

    Raises ValueError for an annotation that is not understood, or that stands above no block.
    """
    text = page.read_text(encoding="utf-8")
    environment = Environment()
    blocks = []
    used = 0
    for match in _BLOCK.finditer(text):
        notes = re.findall(r"<!-- (run|file|setup): (.*?) -->", match["notes"])
        used += len(notes)
        line = text.count("\n", 0, match.start("fence")) + 1
        if match["language"] in _OTHERS:
            raise ValueError(
                f"{page}:{line}: name the block's language: {', '.join(CHECKED)}, text"
            )
        code = textwrap.dedent(match["code"])
        if match["language"] in RUN:
            environment, code = _installed(environment, code)
        block = Block(page=page, line=line, language=match["language"], code=code)
        try:
            blocks.append(_annotated(replace(block, environment=environment), notes))
        except ValueError as error:
            raise ValueError(f"{block.place}: {error}") from None
    if used != len(re.findall(_NOTE, text, re.M)):
        raise ValueError(f"{page}: an annotation stands above no block of code")
    return blocks


def prose(page: Path) -> str:
    """The page's text without its blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def _annotated(block: Block, notes: list[tuple[str, str]]) -> Block:
    for kind, text in notes:
        if kind == "file":
            block = replace(block, file=text.strip())
        elif kind == "setup":
            block = replace(block, setup=(*block.setup, text))
        else:
            block = _run_note(block, text)
    return block


def _run_note(block: Block, text: str) -> Block:
    if text == "no" or text.startswith("no;"):
        reason = text.partition(";")[2].strip()
        if not reason:
            raise ValueError("`run: no` needs a reason: `run: no; REASON`")
        return replace(block, reason=reason)
    for word in (part.strip() for part in text.split(";")):
        name, _, value = word.partition("=")
        names = tuple(filter(None, value.split(",")))
        if word in _FLAGS:
            block = replace(block, flags=block.flags | {word})
        elif name == "extra":
            block = replace(block, environment=replace(block.environment, extras=names))
        elif name == "packages":
            block = replace(block, environment=replace(block.environment, packages=names))
        elif name == "stdin":
            block = replace(block, stdin=value.replace("\\n", "\n"))
        elif word.startswith("shows "):
            block = replace(block, shows=(*block.shows, word.removeprefix("shows ")))
        elif word.startswith("replace ") and value:
            pair = (name.removeprefix("replace "), value)
            if pair[0] not in block.code:
                raise ValueError(f"there is no {pair[0]!r} to replace in the block")
            block = replace(block, replacements=(*block.replacements, pair))
        else:
            raise ValueError(f"the annotation has an unknown word {word!r}")
    return block


def _installed(environment: Environment, code: str) -> tuple[Environment, str]:
    """The environment behind the lines that install, and the code without them."""
    for match in _INSTALL.finditer(code):
        extras: tuple[str, ...] | None = None
        packages = []
        for word in _words(match["what"]):
            if ours := _OURS.fullmatch(word):
                extras = tuple((ours["extras"] or "").split(",")) if ours["extras"] else ()
            else:
                packages.append(word)
        if extras is None:
            packages = [*dict.fromkeys((*environment.packages, *packages))]
            extras = environment.extras
        environment = Environment(extras, tuple(packages))
    return environment, _INSTALL.sub("", code)


def _words(what: str) -> Iterator[str]:
    return (word for word in shlex.split(what, comments=True) if not word.startswith("-"))
