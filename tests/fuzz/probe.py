"""A target that misbehaves on purpose, to show that the harness detects it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from random import Random

from issun.runtime.errors import BundleError
from tests.fuzz.targets import Target

FILE = "probe"
ACTS = ("nothing", "refuse", "crash", "hang", "raise", "print", "exit")


def act_of(content: bytes, rng: Random) -> bytes:
    """Return one of ACTS."""
    return rng.choice(ACTS).encode()


def act(folder: Path) -> None:
    """Misbehave as the file says."""
    match (folder / FILE).read_text():
        case "refuse":
            raise BundleError("refused")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(1000)
        case "raise":
            raise KeyError("key")
        case "print":
            print("noise")
            sys.stdout.flush()
        case "exit":
            os._exit(0)


PROBE = {"probe": Target(FILE, act_of, act)}
