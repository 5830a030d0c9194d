"""Does many mutations of one target, each announced by its number before it is tried.

`python -m tests.fuzz.child TARGET FOLDER SEED FIRST STOP` prints one line of JSON before each
mutation and one after it.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import traceback
from pathlib import Path
from random import Random

from issun.runtime.errors import IssunError
from tests.fuzz.targets import TARGETS, Target

_MEMORY = 6 << 30  # bytes of addresses: what asks for more fails, and the machine lives


def main() -> None:
    """Try the mutations that the command line names."""
    name, folder, seed, first, stop = sys.argv[1:]
    faulthandler.enable()
    _limit_memory()
    target, place = TARGETS[name], Path(folder)
    path = place / target.file
    original = path.read_bytes()
    for number in range(int(first), int(stop)):
        _say("try", number)
        path.write_bytes(target.mutate(original, Random(f"{name} {seed} {number}")))
        _say(*_attempt(target, place))
        path.write_bytes(original)


def _attempt(target: Target, place: Path) -> tuple[str, object]:
    try:
        target.attempt(place)
    except IssunError as error:
        text = str(error)
        return ("fault", f"not one line: {text!r}") if "\n" in text else ("refused", text)
    except BaseException:
        return "fault", traceback.format_exc()
    return "fine", None


def _say(kind: str, what: object) -> None:
    print(json.dumps([kind, what]), flush=True)


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
