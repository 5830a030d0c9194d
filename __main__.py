"""The command `issun`, also as `python -m issun`."""

from __future__ import annotations

from issun.cli.interrupts import end_at_once


def main() -> None:
    """Run the command line; what that needs is imported where Ctrl-C cannot break it."""
    end_at_once()
    from issun.cli.main import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
