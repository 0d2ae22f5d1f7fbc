"""Reports of a start's outcome to the process that waits for it: one line through a descriptor, or stderr.

The line is ``ready`` or ``failed: MESSAGE``; end of file without a line means that the daemon died.
"""

import os
import signal
from collections.abc import Callable
from typing import Protocol

from overlayfs_py.errors import MountError, for_people, say

_READY = b"ready\n"
_FAILED = b"failed: "


class StartReport(Protocol):
    """The outcome of one start; exactly one of the methods is called, once."""

    def ready(self) -> None: ...

    def failed(self, message: str) -> None: ...


class StderrReport:
    """For a start that no process waits for: a failure is a line on stderr."""

    def ready(self) -> None:
        pass

    def failed(self, message: str) -> None:
        say("overlayfs-py", message)


class FdReport:
    """Report through `fd`, from whose other end the waiting process reads; `detach` runs before ``ready``."""

    def __init__(self, fd: int, detach: Callable[[], None] = lambda: None) -> None:
        self.fd = fd
        self._detach = detach

    def ready(self) -> None:
        self._detach()
        self._write(_READY)

    def failed(self, message: str) -> None:
        self._write(_FAILED + for_people(message).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            os.write(self.fd, line)
        except OSError:  # the reader has exited
            pass


def wait_for_report(fd: int, wait: Callable[[], int]) -> None:
    """Return when the daemon reports success; raise MountError with its message when it reports a failure.

    `wait` returns the wait status of the daemon's process; it is called when the daemon reported nothing.
    """
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, 65536)
        if not piece:
            raise MountError(f"the daemon exited without reporting a reason ({_describe(wait())})")
        line += piece
    if line != _READY:
        raise MountError(line.removeprefix(_FAILED).decode().rstrip("\n"))


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"status {os.waitstatus_to_exitcode(status)}"
