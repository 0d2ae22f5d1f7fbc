"""Requests that open files, for a session in which the kernel sends each open (data=passthrough)."""

import itertools
import os
from typing import NamedTuple

from overlayfs_py.engine.copying import CopyUpEffects
from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.engine.setid import may_keep_setid
from overlayfs_py.union.overlay import Caller, Handle, Node

# The kernel handles O_DIRECT itself; a layer's descriptor would require alignment.
_NOT_FOR_LAYERS = os.O_DIRECT
_WRITING = os.O_WRONLY | os.O_RDWR


class _Opened(NamedTuple):
    """One open; `writer`: the user that may write through it."""

    handle: Handle
    writer: int | None


class OpenRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._overlay = state.overlay
        self._backings = state.backings
        self._opens: dict[int, _Opened] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._opens)

    def open(self, request: Request, flags: int, open_flags: int) -> bytes:
        state = self._state
        node = state.node(request.nodeid)
        self._overlay.check_open(node, flags)
        if flags & os.O_TRUNC:
            state.copying.settled(node)
            state.needs.names_above(node)
        elif flags & _WRITING:
            state.copying.need_upper(node, data=True)
        effects = CopyUpEffects(self._overlay, node)
        handle = self._overlay.open_file(node, flags & ~_NOT_FOR_LAYERS)
        state.copying.copied(effects)
        if open_flags & wire.OPEN_KILL_SUIDGID:
            state.drop_setid(node, request)
        opened = self._opened(handle, request.uid)
        if node in self._backings.written:  # the kernel's cached times are stale
            state.notices.attributes_changed(node)
            if flags & _WRITING and not may_keep_setid(request.uid, request.pid):
                state.drop_setid(node, request)
        return opened

    def create(
        self, request: Request, flags: int, mode: int, umask: int, open_flags: int, name: bytes
    ) -> bytes:
        parent = self._state.parent(request.nodeid)
        caller = Caller(request.uid, request.gid, umask)
        with self._state.changing(parent, request.pid):
            node, handle = self._overlay.create(parent, name, flags & ~_NOT_FOR_LAYERS, mode, caller)
        return self._made(node, handle, request.uid)

    def tmpfile(
        self, request: Request, flags: int, mode: int, umask: int, open_flags: int, name: bytes
    ) -> bytes:
        parent = self._state.parent(request.nodeid)
        caller = Caller(request.uid, request.gid, umask)
        with self._state.changing(parent, request.pid):
            node, handle = self._overlay.tmpfile(parent, flags & ~_NOT_FOR_LAYERS, mode, caller)
        return self._made(node, handle, request.uid)

    def release(self, request: Request, fh: int, flags: int, release_flags: int, owner: int) -> bytes:
        opened = self._opens.pop(fh, None)
        if opened is not None:
            if opened.handle.node in self._backings.written:
                self._state.notices.attributes_changed(opened.handle.node)
            self._close(opened)
        return b""

    def give_up(self, body: bytes | memoryview) -> None:
        """The kernel dropped this answer to OPEN: close it, since no RELEASE will come."""
        fh, _, _ = wire.OPEN_OUT.unpack_from(body, len(body) - wire.OPEN_OUT.size)
        opened = self._opens.pop(fh, None)
        if opened is not None:
            self._close(opened)

    def drop_all(self) -> None:
        """Close all, after the end of the session."""
        for opened in self._opens.values():
            self._overlay.release(opened.handle)
        self._opens.clear()

    def _close(self, opened: "_Opened") -> None:
        self._backings.release(opened.handle.node, opened.writer)
        self._overlay.release(opened.handle)

    def _made(self, node: Node, handle: Handle, uid: int) -> bytes:
        opened = self._opened(handle, uid)
        try:
            return self._state.answers.entry(node) + opened
        except BaseException:
            self.give_up(opened)
            raise

    def _opened(self, handle: Handle, uid: int) -> bytes:
        opened = _Opened(handle, uid if handle.flags & _WRITING else None)
        backing_id = self._backings.acquire(handle.node, handle.fd, opened.writer)
        fh = next(self._numbers)
        self._opens[fh] = opened
        if not backing_id:
            return wire.OPEN_OUT.pack(fh, wire.FOPEN_KEEP_CACHE | wire.FOPEN_NOFLUSH, 0)
        return wire.OPEN_OUT.pack(fh, wire.FOPEN_PASSTHROUGH | wire.FOPEN_NOFLUSH, backing_id)
