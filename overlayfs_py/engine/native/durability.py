"""Requests that make changes durable. They wait for the disk, so worker threads carry them out.

Each uses its own descriptor, since a node may replace or close its descriptor meanwhile.
"""

import os
from collections.abc import Callable

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.deferral import Postponed
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.syscalls.attrs import syncfs


class DurabilityRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._overlay = state.overlay

    def fsync(self, request: Request, fh: int, flags: int) -> bytes:
        node = self._state.node(request.nodeid)
        self._state.copying.settled(node)
        data_only = flags & wire.FSYNC_DATA_ONLY
        return _later(self._overlay.durable_fd(node), os.fdatasync if data_only else os.fsync)

    def fsyncdir(self, request: Request, fh: int, flags: int) -> bytes:
        return self.fsync(request, fh, flags)

    def syncfs(self, request: Request) -> bytes:
        return _later(self._overlay.durable_fd(self._overlay.root), syncfs)


def _later(fd: int | None, sync: Callable[[int], object]) -> bytes:
    """Answer once `sync(fd)` has returned, or at once if there is nothing to sync; closes `fd`."""
    if fd is None:
        return b""
    raise Postponed.on([fd], lambda: sync(fd), lambda: b"")
