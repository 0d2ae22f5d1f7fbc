"""Open files: one data descriptor per node, shared by all its handles and replaced by copy-up.

Because every handle reads through its node, an open file sees what is written after a
copy-up, and a node can be read and written without any open (engines that get no OPEN).
Whether a file is open or not, its descriptor may be closed between two operations and opened again by the
next: `Stack.data_fds` bounds them.
"""

import contextlib
import errno
import fcntl
import os

from overlayfs_py.errors import fail
from overlayfs_py.syscalls.copy import write_at
from overlayfs_py.union.layer import Real
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack


class Handle:
    """One open of a regular file. The union owns the descriptor; `Overlay.release` ends the handle."""

    __slots__ = ("flags", "node")

    def __init__(self, node: Node, flags: int) -> None:
        self.node = node
        self.flags = flags
        node.opens += 1

    @property
    def fd(self) -> int:
        """The real descriptor until the next operation: it changes when the file is copied up."""
        return self.node.fd


def readable_fd(stack: Stack, node: Node) -> int:
    """The node's descriptor, opened for reading when there is none."""
    if node.fd < 0:
        _take(stack, node, open_reading(node.data), writable=False)
    return node.fd


def writable_fd(stack: Stack, node: Node) -> int:
    """The node's descriptor, opened read-write; the node has been copied up. That of an append-only file
    (chattr +a) does not count as writable: see `append`.
    """
    if node.fd < 0 or not node.fd_writable:
        upper = node.copied
        if node in stack.protected:  # append-only, or else it would not have come here
            _take(stack, node, upper.open(os.O_RDWR | os.O_APPEND), writable=False)
            return node.fd
        try:
            replace(stack, node, upper.open(os.O_RDWR))
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            _take(stack, node, upper.open(os.O_RDWR | os.O_APPEND), writable=False)
    return node.fd


def replace(stack: Stack, node: Node, fd: int) -> None:
    """Take over `fd`, a read-write descriptor of the node's upper file, in place of the one there was."""
    _take(stack, node, fd, writable=True)


def _take(stack: Stack, node: Node, fd: int, *, writable: bool) -> None:
    """The one place where a node gets a descriptor, so that each is bounded by the cache."""
    if node.upper is not None and node.upper.layer.noatime:
        with contextlib.suppress(PermissionError):  # not ours
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NOATIME)
    old, node.fd, node.fd_writable = node.fd, fd, writable
    if old >= 0:
        os.close(old)
    stack.data_fds.add(node)


def open_reading(real: Real) -> int:
    """Open a file to read it; the caller closes the descriptor. A lower's access time stays as it is: a layer
    may be shared, and reading it must leave no trace (ovl_path_open).
    """
    if real.layer.is_upper:
        return real.open(os.O_RDONLY)
    try:
        return real.open(os.O_RDONLY | os.O_NOATIME)
    except PermissionError:  # not ours: O_NOATIME is for owners
        return real.open(os.O_RDONLY)


def append(node: Node, offset: int, data: bytes | memoryview) -> int:
    """Write to an append-only file (chattr +a), of which the kernel does not know that it is one. EPERM where
    that would change what is there; what it collected before it wrote may begin with what is.
    """
    there = os.fstat(node.fd).st_size - offset
    if not 0 <= there <= len(data) or os.pread(node.fd, there, offset) != bytes(data[:there]):
        fail(errno.EPERM)
    return there + write_at(node.fd, data[there:], offset + there)
