"""Signals unwind like errors, so that temporary files go; and reading standard input does not hold that up.

A tarball is read by a thread of its own, which the unwinding waits for: a read that waits for a pipe must
end.
"""

import errno
import os
import select
import signal
from types import FrameType
from typing import NoReturn


class Input:
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
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        return os.read(self._fd, size)

    def interrupt(self) -> None:
        os.write(self._waker, b"x")


_inputs: list[Input] = []


def standard_input() -> Input:
    """Standard input, for as long as this process lives."""
    _inputs.append(Input(0))
    return _inputs[-1]


_INTERRUPTS = (signal.SIGTERM, signal.SIGINT)


def install() -> None:
    """SIGTERM and SIGINT raise in the main thread."""
    for number in _INTERRUPTS:
        signal.signal(number, _raise)


def ignore() -> None:
    """All is done: the exit status says so, though Python takes its handlers away while it ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for stream in _inputs:
        stream.interrupt()
    raise SystemExit(128 + number)
