"""Writing back what the kernel holds of a mount: pages changed through mappings, not yet asked to be written.

It is done by another process. A thread of ours that waits for our own answers would keep /dev/fuse open if we
were killed, and so wait for ever, and everybody who touches the mount with it.
"""

import os
import sys
from subprocess import DEVNULL, PIPE
from types import TracebackType

import trio

# Answers each line with the errno of one syncfs(2) on the mount.
_SYNC = """
import ctypes, os, sys
try:
    fd, found = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), 0
except OSError as e:
    fd, found = -1, e.errno
syncfs = ctypes.CDLL(None, use_errno=True).syncfs
for _ in sys.stdin:
    print(found or syncfs(fd) and ctypes.get_errno(), flush=True)
"""
_LONGEST_ANSWER = 16


class WriteBack:
    """The process that does it, for as long as the block lasts."""

    def __init__(self, mountpoint: bytes) -> None:
        self._mountpoint = mountpoint
        self._process: trio.Process | None = None
        self._busy = False

    async def __aenter__(self) -> "WriteBack":
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", _SYNC, self._mountpoint],
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The process is told to end. One that still waits for the mount is not waited for."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            if not self._busy:
                await process.wait()

    async def write(self) -> None:
        """Return when all of it has been written; OSError names what went wrong."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._busy = True
        await process.stdin.send_all(b"\n")
        answer = await process.stdout.receive_some(_LONGEST_ANSWER)
        self._busy = False
        if not answer.strip().isdigit():
            raise OSError(5, "the process that writes back ended", self._mountpoint)
        if code := int(answer):
            raise OSError(code, os.strerror(code), self._mountpoint)
