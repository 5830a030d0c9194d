"""The Japanese form of every message, by its English template."""

from __future__ import annotations

from issun.cli.japanese import answering, exporting, help, measuring, serving, training  # noqa: A004

JAPANESE: dict[str, str] = {
    **help.MESSAGES,
    **answering.MESSAGES,
    **exporting.MESSAGES,
    **measuring.MESSAGES,
    **training.MESSAGES,
    **serving.MESSAGES,
}
