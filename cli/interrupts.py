"""Ctrl-C at times when a KeyboardInterrupt at an arbitrary place would do harm.

The entry point imports this module first, so it must not import anything slow.
"""

from __future__ import annotations

import signal


def exit_on_interrupt() -> None:
    """Let Ctrl-C kill the process silently until `raise_on_interrupt`.

    Used around imports: an interrupted import may raise any error, and C code may print some.
    """
    _replace(signal.default_int_handler, signal.SIG_DFL)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, which is Python's default."""
    _replace(signal.SIG_DFL, signal.default_int_handler)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt or was caused by one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _replace(old: object, new: object) -> None:
    """Set the handler only if it is `old`: under nohup, for example, Ctrl-C is ignored."""
    if signal.getsignal(signal.SIGINT) is old:
        try:
            signal.signal(signal.SIGINT, new)  # type: ignore[arg-type]
        except ValueError:  # not the main thread, so interrupts do not arrive here
            return
