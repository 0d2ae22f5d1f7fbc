"""Open files: one data descriptor per node, shared by all its handles and replaced by copy-up.

Because every handle reads through its node, an open file sees what is written after a
copy-up, and a node can be read and written without any open (engines that get no OPEN).
"""

import errno
import itertools
import os

from overlayfs_py.syscalls.copy import write_at
from overlayfs_py.union.layer import Real
from overlayfs_py.union.node import Node


class Handle:
    """One open of a regular file. The union owns the descriptor; `release` ends the handle."""

    __slots__ = ("flags", "node")

    def __init__(self, node: Node, flags: int) -> None:
        self.node = node
        self.flags = flags
        node.opens += 1

    @property
    def fd(self) -> int:
        """The real descriptor as of now; it changes when the file is copied up."""
        return self.node.fd

    def release(self) -> None:
        """End the handle; the last one of a node closes its descriptor."""
        self.node.opens -= 1
        if self.node.opens == 0 and not self.node.known:
            close(self.node)


class DataFds:
    """Bounds the descriptors of nodes that nobody holds open; the oldest are closed first, between
    operations.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._nodes: dict[Node, None] = {}

    def note(self, node: Node) -> None:
        """`node.fd` was opened."""
        self._nodes[node] = None

    def forget(self, node: Node) -> None:
        """Close the node's descriptor."""
        self._nodes.pop(node, None)
        close(node)

    def close(self) -> None:
        """Close every descriptor, whoever holds it open."""
        for node in list(self._nodes):
            self.forget(node)

    def trim(self) -> None:
        """Close the oldest descriptors above the limit, an eighth of it at once, those of nodes with handles
        or without a name excepted.
        """
        excess = len(self._nodes) - self.limit
        if excess <= 0:
            return
        for node in list(itertools.islice(self._nodes, excess + self.limit // 8)):
            if node.opens == 0 and not node.unlinked:
                self.forget(node)
            else:  # to the end of the line: it is asked again when all others were
                del self._nodes[node]
                self._nodes[node] = None


def readable_fd(node: Node) -> int:
    """The node's descriptor, opened for reading when there is none."""
    if node.fd < 0:
        node.fd = open_reading(node.data)
        node.fd_writable = False
    return node.fd


def open_reading(real: Real) -> int:
    """A descriptor to read a file by, for the caller to close; a lower's access time stays as it is."""
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
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return there + write_at(node.fd, data[there:], offset + there)


def replace(node: Node, fd: int) -> None:
    """Take over `fd`, a read-write descriptor of the node's upper file, in place of the one there was."""
    old, node.fd, node.fd_writable = node.fd, fd, True
    if old >= 0:
        os.close(old)


def close(node: Node) -> None:
    """Close the node's descriptor; it is opened again when needed."""
    if node.fd >= 0:
        os.close(node.fd)
        node.fd = -1
        node.fd_writable = False
