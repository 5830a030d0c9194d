"""Imports have no cycles, and the folders of the runtime import in one direction only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "cli", "cluster", "export", "kit", "runtime", "server", "training", "web")
# Each room imports only from those before it; "" is the runtime's own folder, the public API.
ROOMS = ("text", "weights", "decoding", "constraint", "filling", "")
# Modules of the runtime's folder that every room may import.
SHARED = ("child", "errors", "files", "manifest")


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[f"issun.{name}"] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """What a module imports anywhere, except for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_there_are_no_cycles() -> None:
    known = modules()
    graph = {
        # The packages around a module are loaded before it.
        name: {
            other
            for other in imported(path)
            if other in known and not f"{name}.".startswith(f"{other}.")
        }
        for name, path in known.items()
    }
    assert list(TopologicalSorter(graph).static_order())  # CycleError names the modules


@pytest.mark.parametrize("room", ROOMS[:-1])
def test_rooms_import_in_one_direction(room: str) -> None:
    allowed = {*ROOMS[: ROOMS.index(room) + 1]}
    for path in (ROOT / "runtime" / room).glob("*.py"):
        for name in imported(path):
            if name.startswith("issun.runtime."):
                first = name.split(".")[2]
                assert first in {*allowed, *SHARED}, f"{path} imports {name}"
