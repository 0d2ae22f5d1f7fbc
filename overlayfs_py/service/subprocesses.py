"""Child processes that an interruption of their parent never leaves running.

A signal handler of Python's may raise at any instant: also inside ``Popen()``, between fork(2) and the
moment its caller knows the process, and then nobody would end it.
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
    """Start a child as Popen does; an exception that leaves the block ends it: SIGTERM, then SIGKILL."""
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
    """SIGINT, SIGTERM and SIGHUP take effect at the end of the block.

    By handlers, and not by a signal mask, which children begun inside would inherit; and only where there
    is a handler, so that they go on ignoring what we ignore.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler runs here
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
        # All handlers are back before one of them may raise.
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
