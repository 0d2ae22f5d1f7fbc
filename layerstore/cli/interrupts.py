"""Make signals unwind the program like errors, so that temporary files are removed.

The unwinding waits for threads: one that reads a tarball from a pipe, and one that writes to a pipe, must not
block it.
"""

import errno
import os
import select
import signal
import stat
import sys
import threading
from types import FrameType
from typing import NoReturn

from overlayfs_py.errors import fail


class InterruptibleInput:
    """Reads a descriptor, which stays the caller's; `interrupt` makes blocked and later reads raise EINTR."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._woken, self._waker = os.pipe()

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        ready, _, _ = select.select([self._fd, self._woken], [], [])
        if self._woken in ready:
            fail(errno.EINTR)
        return os.read(self._fd, size)

    def interrupt(self) -> None:
        os.write(self._waker, b"x")


_inputs: list[InterruptibleInput] = []


def standard_input() -> InterruptibleInput:
    """Return standard input as a stream that a signal interrupts."""
    _inputs.append(InterruptibleInput(0))
    return _inputs[-1]


_INTERRUPTS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)  # SIGINT first: Python's default is a traceback
_FORCE = 3  # this many signals end the process at once, as with docker's command
_SOON = 0.01
_WAKING = signal.SIGURG  # otherwise ignored
_STDOUT = 1
_came: list[int] = []


def install() -> None:
    """Make the first SIGTERM, SIGINT or SIGHUP raise in the main thread; ignored ones stay so (nohup)."""
    for number in _INTERRUPTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)
    signal.signal(signal.SIGALRM, _raise_again)
    signal.signal(_WAKING, _nothing)
    sys.unraisablehook = _not_raised


def ignore() -> None:
    """Block signals, once everything is done: Python removes its handlers while it exits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)


def _raise(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if len(_came) == 1:
        for stream in _inputs:
            stream.interrupt()
        _let_writers_go()
        raise SystemExit(128 + number)
    if len(_came) >= _FORCE:  # a second signal must not interrupt the clean-up
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _let_writers_go() -> None:
    """Free threads that are blocked writing to a pipe.

    Standard output becomes /dev/null and a signal interrupts their write(2), which Python then repeats there.
    """
    others = sys._current_frames().keys() - {threading.main_thread().ident}
    if others and not stat.S_ISREG(os.fstat(_STDOUT).st_mode):
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        for ident in others:
            signal.pthread_kill(ident, _WAKING)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _raise_again(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + _came[0])


def _not_raised(what: "sys.UnraisableHookArgs", /) -> None:
    """Raise again, from a timer, an exit that Python could only print, as in a weak reference's callback."""
    if _came and isinstance(what.exc_value, SystemExit):
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(what)
