"""Ctrl-C: what it does where Python's way, a KeyboardInterrupt anywhere, does harm.

The entry point imports this first, so it imports nothing that takes time.
"""

from __future__ import annotations

import signal


def end_at_once() -> None:
    """Let Ctrl-C end the process by its signal, without a word, until `raise_interrupts`.

    For imports: one that is interrupted half way may end in any error, and C code prints some.
    """
    _replace(signal.default_int_handler, signal.SIG_DFL)


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python does from its start."""
    _replace(signal.SIG_DFL, signal.default_int_handler)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt or, as libraries raise others for it, came of one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _replace(old: object, new: object) -> None:
    """Set the handler where it is `old`: nohup, and `&` in a script, let Ctrl-C be ignored."""
    if signal.getsignal(signal.SIGINT) is old:
        try:
            signal.signal(signal.SIGINT, new)  # type: ignore[arg-type]
        except ValueError:  # another thread than the main one, which gets no interrupts
            return
