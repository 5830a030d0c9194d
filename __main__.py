"""`python -m issun` is the command `issun`."""

from __future__ import annotations

from issun.cli.main import main

if __name__ == "__main__":
    main()
