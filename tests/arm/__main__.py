"""`python -m tests.arm` sets the emulated machine up, or says why it cannot."""

from __future__ import annotations

import sys

from tests.arm.machine import FOLDER, SetUpError, set_up

try:
    set_up()
except SetUpError as error:
    print(f"No ARM machine can be emulated here: {error}", file=sys.stderr)
    sys.exit(1)
print(f"The emulated ARM machine is in {FOLDER}.")
