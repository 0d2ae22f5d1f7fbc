"""How a start tells its outcome to whoever waits for it: one line through a descriptor, or stderr.

The line is ``ready`` or ``failed: MESSAGE``; an end without a line means that the daemon died.
"""

import os
import signal
from collections.abc import Callable
from typing import Protocol

from overlayfs_py.errors import MountError, for_people, say

_READY = b"ready\n"
_FAILED = b"failed: "


class StartReport(Protocol):
    """Told exactly once."""

    def ready(self) -> None: ...

    def failed(self, message: str) -> None: ...


class StderrReport:
    """Nobody waits: a failure is a line on stderr."""

    def ready(self) -> None:
        pass

    def failed(self, message: str) -> None:
        say("overlayfs-py", message)


class FdReport:
    """The waiting process reads from the other end of `fd`. `detach` runs before it is told to go on."""

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
        except OSError:  # who waited has gone
            pass


def wait_for_report(fd: int, wait: Callable[[], int]) -> None:
    """Return when the start succeeded, else raise MountError with its message.

    `wait` returns the wait status of the daemon's process when it said nothing at all.
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
