"""`make soak`: mixed load on a server, and kill -9 of processes that write files."""

from __future__ import annotations

import argparse
import sys

from tests.soak.kills import kill
from tests.soak.load import load


def main() -> None:
    """Run both; exits with 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="of load")
    parser.add_argument("--kills", type=int, default=200, help="kill -9 rounds")
    options = parser.parse_args()
    faults = load(options.seconds) + kill(options.kills)
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
