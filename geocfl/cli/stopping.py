"""SIGTERM stops a command as Ctrl-C does: what is finished is kept, and the exit code says which signal it was."""

from __future__ import annotations

import signal
import threading


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM, such as from Slurm, Kubernetes or a cloud that takes a spot machine back."""


def stop_on_sigterm() -> None:
    """Makes SIGTERM raise `Terminated` in the main thread, unless the process that started this one ignores it."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def exit_code(stopped: KeyboardInterrupt) -> int:
    """143 after SIGTERM, 130 after Ctrl-C: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT)
