"""A Japanese GPT-2 chat model on a laptop's CPU; the Python API is `issun.runtime`."""

from __future__ import annotations

import os
import sys
from types import TracebackType

# ONNX Runtime reports to its maker from the moment it is imported. Nothing leaves this machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__: str


def __getattr__(name: str) -> str:
    # The metadata is read when it is asked for, so that `import issun` costs nothing.
    if name != "__version__":
        raise AttributeError(f"module 'issun' has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415

    return version("issun")


def _report(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """End a program with one line and exit code 2 where a user can mend what is wrong.

    Without a word for Ctrl-C, after which nothing more can be imported for sure.
    """
    from issun.cli.interrupts import is_interrupt  # noqa: PLC0415

    if is_interrupt(error):
        sys.exit(130)
    from issun.cli.reporting import exit_code_of  # noqa: PLC0415

    code = exit_code_of(error)
    if code is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.exit(code)


# `python -m issun.…` imports this package while it looks for the module. What the module itself
# imports may be missing, so that none of its own lines could report it. The installed script
# begins with this package too.
if sys.argv[:1] == ["-m"] or "".join(sys.argv[:1]).endswith(
    (f"{os.sep}issun", f"{os.sep}issun.exe")
):
    sys.excepthook = _report
    if "issun.cli.main" in sys.orig_argv:  # which imports much before it can say this itself
        from issun.cli.interrupts import exit_on_interrupt

        exit_on_interrupt()
