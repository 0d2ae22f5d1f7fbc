"""Write back the pages of a mount that the kernel still holds, such as those changed through mappings.

Another process does it: a thread of this one that waits for our own answers would keep /dev/fuse open if the
daemon were killed, and so would wait for ever, as would all users of the mount.
"""

import errno
import sys
from subprocess import DEVNULL, PIPE
from types import TracebackType

import trio

from overlayfs_py.engine import Engine
from overlayfs_py.errors import fail

# Answers each line with an errno: that of syncfs(2) on the mount, or of a request that always reaches the
# daemon.
_PROGRAM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
try:
    fd, found = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), 0
except OSError as e:
    fd, found = -1, e.errno
def ask():
    try:
        os.fstatvfs(fd)
    except OSError as e:
        return e.errno
    return 0
for line in sys.stdin:
    if line == "sync\\n":
        found = found or libc.syncfs(fd) and ctypes.get_errno()
    else:
        found = found or ask()
    print(found, flush=True)
"""
_LONGEST_ANSWER = 16
# Each round writes at least as many requests as the kernel lets run in the background (64 of up to 1 MiB).
_MOST_ROUNDS = 200


class WriteBack:
    """The process that writes back, alive inside the ``async with`` block."""

    def __init__(self, engine: Engine, mountpoint: bytes) -> None:
        self._engine = engine
        self._mountpoint = mountpoint
        self._process: trio.Process | None = None
        self._waiting = False

    async def __aenter__(self) -> "WriteBack":
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, self._mountpoint],
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process; do not wait for one that waits for the mount, since it may not end yet."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            if not self._waiting:
                await process.wait()

    async def write(self) -> None:
        """Return when all changes made before the call are in the upper; OSError when that fails.

        syncfs(2) on a FUSE mount sends the pages but does not wait until they are written (wait_sb_inodes
        skips the mount). A request sent afterwards is answered after them. Pages that found no room in the
        kernel's background queue follow later, so requests are repeated until a whole round brings no further
        write.
        """
        await self._request(b"sync\n")
        before = None
        for _ in range(_MOST_ROUNDS):
            statistics = self._engine.statistics()
            if before == (writes := statistics.operations.get("write", 0)) and not statistics.copies:
                return
            before = writes
            await self._request(b"ask\n")

    async def _request(self, line: bytes) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._waiting = True
        await process.stdin.send_all(line)
        answer = await process.stdout.receive_some(_LONGEST_ANSWER)
        self._waiting = False
        code = int(answer) if answer.strip().isdigit() else errno.EIO
        if code:
            fail(code, self._mountpoint)
