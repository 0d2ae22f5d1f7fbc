"""Signals unwind like errors, so that temporary files go; and reading standard input does not hold that up.

A tarball is read by a thread of its own, which the unwinding waits for: a read that waits for a pipe must
end.
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
    """A descriptor as a stream; `interrupt` makes waiting and later reads fail with EINTR. Does not own the
    fd.
    """

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
    """Standard input, for as long as this process lives."""
    _inputs.append(InterruptibleInput(0))
    return _inputs[-1]


_INTERRUPTS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)  # SIGINT first: Python raises a traceback for it
_FORCE = 3  # so many end this process at once, as docker's command does
_SOON = 0.01
_WAKING = signal.SIGURG  # otherwise ignored
_STDOUT = 1
_came: list[int] = []


def install() -> None:
    """The first SIGTERM, SIGINT or SIGHUP raises in the main thread; one that is ignored stays so (nohup)."""
    for number in _INTERRUPTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)
    signal.signal(signal.SIGALRM, _raise_again)
    signal.signal(_WAKING, _nothing)
    sys.unraisablehook = _not_raised


def ignore() -> None:
    """All is done: the exit status says so, though Python takes its handlers away while it ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)


def _raise(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if len(_came) == 1:
        for stream in _inputs:
            stream.interrupt()
        _let_writers_go()
        raise SystemExit(128 + number)
    if len(_came) >= _FORCE:  # else the impatient would interrupt the cleaning up
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _let_writers_go() -> None:
    """A thread that waits for a pipe which nobody reads would hold up the unwinding: its write(2) is broken
    off, and Python does it again, on what takes everything.
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
    """Raised where Python only prints errors, as in the callback of a weak reference that each import has."""
    if _came and isinstance(what.exc_value, SystemExit):
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(what)
