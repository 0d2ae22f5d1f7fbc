"""Child processes that never survive an interruption of their parent.

A Python signal handler may raise at any point, also inside ``Popen()`` after fork(2): then the caller has no
process object to end the child with.
"""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_SECONDS = 10.0


@contextlib.contextmanager
def running(command: Sequence[str], **settings: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Start a child as Popen does; an exception that leaves the block ends it by SIGTERM, then SIGKILL."""
    process = None
    try:
        with postponed():
            process = subprocess.Popen(command, **settings)
        yield process
    except BaseException:
        if process is not None:
            _end(process)
        raise


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and SIGHUP until the end of the block.

    This uses handlers, because children would inherit a signal mask; and it replaces existing handlers only,
    so that children ignore what this process ignores.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {int(number): signal.getsignal(number) for number in _INTERRUPTS}
    caught = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in caught:
            signal.signal(number, note)
        yield
    finally:
        # Restore all handlers before one of them may raise.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        for number, handler in caught.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end(process: "subprocess.Popen[Any]") -> None:
    with process:  # closes its pipes
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
