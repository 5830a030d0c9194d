"""Tries many mutations of one target and prints the number of each before trying it.

`python -m tests.fuzz.child TARGET FOLDER SEED FIRST STOP 2>FILE` prints one line of JSON before
each mutation and one after it. Any other output, such as a library's warning, is a fault too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from pathlib import Path
from random import Random
from typing import TextIO

from issun.cli.reporting import describe
from issun.runtime.errors import IssunError
from tests.fuzz.probe import PROBE
from tests.fuzz.targets import TARGETS, Target

_MEMORY = 6 << 30  # bytes of address space: larger allocations fail and do not harm the machine


def main() -> None:
    """Try the mutations given on the command line."""
    name, folder, seed, first, stop = sys.argv[1:]
    faulthandler.enable()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # C++ libraries print to stdout
    _limit_memory()
    target, place = (TARGETS | PROBE)[name], Path(folder)
    path = place / target.file
    original = path.read_bytes()
    for number in range(int(first), int(stop)):
        _say(out, "try", number)
        path.write_bytes(target.mutate(original, Random(f"{name} {seed} {number}")))
        before = os.fstat(2).st_size
        answer = _attempt(target, place)
        if printed := os.pread(2, 1 << 16, before):
            answer = "fault", f"printed: {printed.decode(errors='replace')}"
        _say(out, *answer)
        path.write_bytes(original)


def _attempt(target: Target, place: Path) -> tuple[str, object]:
    try:
        target.attempt(place)
    except IssunError as error:
        return "refused", describe(error)
    except BaseException:
        return "fault", traceback.format_exc()
    return "fine", None


def _say(out: TextIO, kind: str, what: object) -> None:
    print(json.dumps([kind, what]), file=out, flush=True)


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
