"""Requests about the contents of files. Data belongs to nodes: without opens no request has a handle.

After a first ENOSYS to OPEN, CREATE and FLUSH the kernel sends none of them: opens then need no request
(benchmarks: open+read+close, repeated), and a new file comes by MKNOD.
"""

import errno
import logging
import os
from collections.abc import Callable
from time import perf_counter

from overlayfs_py.engine.copying import INLINE_SIZE
from overlayfs_py.engine.native import pipes, wire
from overlayfs_py.engine.native.deferral import Postponed
from overlayfs_py.engine.native.latency import LatencyAverage, Timed
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.negotiation import MAX_WRITE
from overlayfs_py.engine.native.pipes import Body
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.engine.setid import may_keep_setid
from overlayfs_py.errors import fail
from overlayfs_py.syscalls import attrs
from overlayfs_py.syscalls.copy import copy_range, write_at
from overlayfs_py.union.overlay import Caller, Node

log = logging.getLogger("overlayfs_py.engine.native")

_FLAG_QUERIES = (attrs.FS_IOC_GETFLAGS, attrs.FS_IOC_FSGETXATTR)
_FLAG_CHANGES = (attrs.FS_IOC_SETFLAGS, attrs.FS_IOC_FSSETXATTR)
_LONGEST = 64
_LARGE = (
    1 << 16
)  # bytes of a READ; smaller ones are copied faster than piped (benchmarks: 4 KiB random read, warm)
# Bytes of one copy at most, so that it can be interrupted; the caller sends a request for the rest.
_COPY_LIMIT = 1 << 30


class FileRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._overlay = state.overlay
        self._buffer = memoryview(bytearray(MAX_WRITE))
        self._byte = bytearray(1)
        self._reading = LatencyAverage()
        self._writing = LatencyAverage()

    def read(
        self, request: Request, fh: int, offset: int, size: int, flags: int, owner: int, open_flags: int
    ) -> Body:
        fd = self._overlay.data_fd(self._state.nodes.inode(request.nodeid).node)
        latency = self._reading
        if latency.is_slow and not self._is_cached(fd, offset, size):
            raise self._read_later(fd, offset, size)
        start = perf_counter()
        body = os.pread(fd, size, offset) if size < _LARGE else self._read_large(request, fd, offset, size)
        if not latency.is_slow:  # else the data was cached, which says nothing about the disk
            latency.record(perf_counter() - start)
        return body

    def _read_large(self, request: Request, fd: int, offset: int, size: int) -> Body:
        pipe = self._state.pipe
        if pipe is not None and size <= pipes.LONGEST:
            try:
                return pipe.fill(request.unique, fd, offset, size)
            except (
                OSError
            ) as error:  # not supported by the layer's file system, or an error that preadv meets again
                log.debug("no pipe: %s", error)
        # A reused buffer has its pages already (benchmarks: sequential read, warm); the answer leaves before
        # its next use.
        part = self._buffer[:size]
        return part[: os.preadv(fd, (part,), offset)]

    def _is_cached(self, fd: int, offset: int, size: int) -> bool:
        """Whether reading need not wait for the disk, judged by the first and the last byte of the range."""
        try:
            for at in (offset, offset + size - 1):
                os.preadv(fd, (self._byte,), at, os.RWF_NOWAIT)
        except OSError:  # EAGAIN; or EOPNOTSUPP, where it is unknown
            return False
        return True

    def _read_later(self, fd: int, offset: int, size: int) -> Postponed:
        own_fd = os.dup(fd)
        content = b""

        def work() -> None:
            nonlocal content
            content = os.pread(own_fd, size, offset)

        return _timed(self._reading, own_fd, work, lambda: content)

    def write(
        self,
        request: Request,
        fh: int,
        offset: int,
        size: int,
        flags: int,
        owner: int,
        open_flags: int,
        data: memoryview,
    ) -> bytes:
        if len(data) != size:
            fail(errno.EINVAL)
        state = self._state
        node = state.nodes.inode(request.nodeid).node
        if not self._overlay.writes_at_once(node):
            self._overlay.check_open(node, os.O_WRONLY | os.O_APPEND)
            state.copying.need_upper(node, data=True)
        if flags & wire.WRITE_KILL_SUIDGID:
            state.drop_setid(node, request)
        if state.collects and flags & wire.WRITE_CACHE:
            with state.keeping_mtime(node):
                return wire.WRITE_OUT.pack(self._overlay.write(node, offset, data), 0)
        latency = self._writing
        if latency.is_slow:
            self._write_later(node, offset, data, flags)
        start = perf_counter()
        done = self._overlay.write(node, offset, data)
        latency.record(perf_counter() - start)
        return self._written(node, done, flags)

    def _written(self, node: Node, done: int, flags: int) -> bytes:
        if flags & wire.WRITE_CACHE:
            self._state.notices.written_back(node)
        return wire.WRITE_OUT.pack(done, 0)

    def _write_later(self, node: Node, offset: int, data: memoryview, flags: int) -> None:
        """Postpone the write to a thread, since the disk is slow; return for an append-only file."""
        try:
            fd = self._descriptor(node, os.O_RDWR)
        except PermissionError:
            return
        copy = bytes(data)
        done = 0

        def work() -> None:
            nonlocal done
            done = write_at(fd, copy, offset)

        raise _timed(self._writing, fd, work, lambda: self._written(node, done, flags))

    def fallocate(self, request: Request, fh: int, offset: int, length: int, mode: int) -> bytes:
        node = self._prepared_to_write(request.nodeid, request)
        with self._state.keeping_mtime(node):
            self._overlay.fallocate(node, mode, offset, length)
        self._state.notices.changed(node, request.pid)
        return b""

    def lseek(self, request: Request, fh: int, offset: int, whence: int) -> bytes:
        node = self._state.node(request.nodeid)

        def found() -> bytes:
            return wire.LSEEK_OUT.pack(self._overlay.seek(node, offset, whence))

        if not self._state.collects:
            return found()
        # The kernel does not write back before LSEEK, but it must to drop its pages.
        raise Postponed.on([], lambda: self._state.notices.drop_pages([node]), found)

    def copy_file_range(
        self, request: Request, fh: int, offset: int, to_nodeid: int, to_fh: int, to_offset: int, *rest: int
    ) -> bytes:
        size, _ = rest
        return self._copy(
            request, offset, to_nodeid, to_offset, size, lambda done: wire.WRITE_OUT.pack(done, 0)
        )

    def copy_file_range_64(
        self, request: Request, fh: int, offset: int, to_nodeid: int, to_fh: int, to_offset: int, *rest: int
    ) -> bytes:
        size, _ = rest
        return self._copy(request, offset, to_nodeid, to_offset, size, wire.COPY_RANGE_OUT.pack)

    def _copy(
        self,
        request: Request,
        offset: int,
        to_nodeid: int,
        to_offset: int,
        size: int,
        answer: Callable[[int], bytes],
    ) -> bytes:
        source = self._state.node(request.nodeid)
        target = self._prepared_to_write(to_nodeid, request)
        size = min(size, _COPY_LIMIT)
        if size <= INLINE_SIZE:
            with self._state.keeping_mtime(target):
                return answer(self._overlay.copy_range(source, offset, target, to_offset, size))
        fds = [self._descriptor(source, os.O_RDONLY)]
        try:
            fds.append(self._descriptor(target, os.O_RDWR))
        except BaseException:
            os.close(fds[0])
            raise
        copied = 0

        def work() -> None:
            nonlocal copied
            copied = copy_range(fds[0], offset, fds[1], to_offset, size)

        raise Postponed.on(fds, work, lambda: answer(copied))

    def tmpfile(
        self, request: Request, flags: int, mode: int, umask: int, open_flags: int, name: bytes
    ) -> bytes:
        """O_TMPFILE; the kernel opens it without a request, as all files."""
        caller = Caller(request.uid, request.gid, umask)
        parent = self._state.parent(request.nodeid)
        with self._state.changing(parent, request.pid):
            node, handle = self._overlay.tmpfile(parent, flags, mode, caller)
        try:
            entry = self._state.answers.entry(node)
        finally:
            self._overlay.release(handle)
        return entry + wire.OPEN_OUT.pack(0, wire.FOPEN_KEEP_CACHE, 0)

    def ioctl(
        self,
        request: Request,
        fh: int,
        flags: int,
        command: int,
        arg: int,
        in_size: int,
        out_size: int,
        data: memoryview,
    ) -> bytes | int:
        """Read or change the flags of the real inode (lsattr, chattr); ENOTTY for other commands.

        The errno is returned, not raised, since it is common: Python's open checks whether a file is a
        terminal.
        """
        change = command in _FLAG_CHANGES
        if not change and command not in _FLAG_QUERIES:
            return errno.ENOTTY
        node = self._state.node(request.nodeid)
        if max(in_size, out_size) > _LONGEST or in_size != len(data) or not (node.is_dir or node.is_file):
            fail(errno.EINVAL)
        content = bytes(data).ljust(_LONGEST, b"\0")
        if change:
            self._state.copying.need_upper(node, data=False)
            found = self._overlay.change_flags(node, command, content)
            self._state.notices.attributes_changed(node)  # the kernel does not know of the new ctime
        else:
            found = self._overlay.query_flags(node, command, content)
        return wire.IOCTL_OUT.pack(0, 0, 0, 0) + found[:out_size]

    def release(self, request: Request, fh: int, flags: int, release_flags: int, owner: int) -> bytes:
        return b""

    def _prepared_to_write(self, nodeid: int, request: Request) -> Node:
        """Return the node, copied up, and without set-id bits that the writer may not keep."""
        state = self._state
        node = state.node(nodeid)
        if not self._overlay.writes_at_once(node):
            self._overlay.check_open(node, os.O_WRONLY | os.O_APPEND)
            state.copying.need_upper(node, data=True)
        if request.uid or not may_keep_setid(request.uid, request.pid):
            state.drop_setid(node, request)
        return node

    def _descriptor(self, node: Node, flags: int) -> int:
        """Return a descriptor of the node's data; the caller owns it."""
        handle = self._overlay.open_file(node, flags)
        try:
            return os.dup(handle.fd)
        finally:
            self._overlay.release(handle)


def _timed(
    latency: LatencyAverage, fd: int, work: Callable[[], object], answer: Callable[[], bytes]
) -> Postponed:
    """Return a request postponed to a thread that does `work`; `latency` records the time, `fd` is closed."""
    timed = Timed(work, latency)

    def answered() -> bytes:
        timed.report()
        return answer()

    return Postponed.on([fd], timed, answered)
