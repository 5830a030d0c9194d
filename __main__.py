"""The command `issun`, also as `python -m issun`."""

from __future__ import annotations

from issun.cli.interrupts import exit_on_interrupt


def main() -> None:
    """Run the command line; what that needs is imported where Ctrl-C cannot break it."""
    exit_on_interrupt()
    from issun.cli.main import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
