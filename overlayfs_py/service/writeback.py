"""Writing back what the kernel holds of a mount: pages changed through mappings, not yet asked to be written.

It is done by another process. A thread of ours that waits for our own answers would keep /dev/fuse open if we
were killed, and so wait for ever, and everybody who touches the mount with it.
"""

import errno
import sys
from subprocess import DEVNULL, PIPE
from types import TracebackType

import trio

from overlayfs_py.engine import Engine
from overlayfs_py.errors import fail

# Answers each line with an errno: of syncfs(2) on the mount, or of a request that the kernel never answers
# by itself.
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
    """The process that does it, for as long as the block lasts."""

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
        """The process is ended. One that waits for the mount may not end yet, and is not waited for."""
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
        """Return when all that was changed before the call is in the upper; OSError says what went wrong.

        syncfs(2) of a FUSE mount sends the pages and does not wait until they are written (wait_sb_inodes
        passes over it). A request sent later is answered after them; those for which there was no room in the
        kernel's background queue follow, so it asks until a whole round has brought no more.
        """
        await self._tell(b"sync\n")
        before = None
        for _ in range(_MOST_ROUNDS):
            statistics = self._engine.statistics()
            if before == (writes := statistics.operations.get("write", 0)) and not statistics.copies:
                return
            before = writes
            await self._tell(b"ask\n")

    async def _tell(self, line: bytes) -> None:
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
