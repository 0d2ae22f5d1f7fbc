"""Backing files: the kernel reads and writes the layer's file itself, without requests (Linux 6.9).

A backing id stands for one real file. While any open of an inode has one, all its opens must have the same;
and an inode cannot be open both with a backing file and through the FUSE page cache (the kernel fails such
opens with EIO). So the first open decides for all until the last one is closed (decision 0013):

- A file in the upper that is not open gets its upper file.
- A file in a lower of a writable mount is opened through the FUSE page cache, since a write must be able to
  copy it up while readers have it open; the readers then see what is written. Once the last of these opens is
  closed, the next one gets the upper file.
- On a read-only mount every file gets its layer's file, so mounts of one image share one page cache.

For the layer's file system, writes through a backing file are the daemon's, so they clear no set-id bits.
Therefore an ordinary user's open for writing clears them at once, and a file cannot become set-id while
another ordinary user has it open for writing.
"""

import errno
import fcntl
import logging
from collections.abc import Callable
from struct import Struct

from overlayfs_py.union.overlay import Node, Overlay

log = logging.getLogger("overlayfs_py.engine.native")

_BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, uint32_t)
_BACKING_MAP = Struct("=iIQ")
_BACKING_ID = Struct("=I")
_CACHED = 0  # no backing id is 0

# What the kernel or the machine lacks, rather than this one file.
_NEVER = (errno.EPERM, errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.ELOOP, errno.ENOSYS)


class Backings:
    """The present opens by node: how many, and with which backing id (0: through the page cache)."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        # Called with the reason if the kernel accepts no backing files.
        self.refused: Callable[[str], None] = lambda why: None
        self._fuse_fd = -1
        self._opens: dict[Node, tuple[int, int]] = {}
        # Nodes that are open for writing without requests, and the users that have them open.
        self.written: dict[Node, list[int]] = {}

    @property
    def usable(self) -> bool:
        return self._fuse_fd >= 0

    def enable(self, fuse_fd: int) -> None:
        """Use backing files: the kernel has agreed. The caller keeps `fuse_fd`."""
        self._fuse_fd = fuse_fd

    def acquire(self, node: Node, real_fd: int, writer: int | None) -> int:
        """Count one more open of `node`, whose data `real_fd` holds; return the backing id for the answer, or
        0.

        `writer`: the user that may write.
        """
        count, backing_id = self._opens.get(node, (0, _CACHED))
        if count == 0 and self.usable and self._overlay.may_back(node):
            backing_id = self._register(real_fd)
        self._opens[node] = (count + 1, backing_id)
        if writer is not None and backing_id != _CACHED:
            self.written.setdefault(node, []).append(writer)
        return backing_id

    def release(self, node: Node, writer: int | None) -> None:
        """Count one open less."""
        count, backing_id = self._opens[node]
        if writer is not None and backing_id != _CACHED:
            self.written[node].remove(writer)
            if not self.written[node]:
                del self.written[node]
        if count > 1:
            self._opens[node] = (count - 1, backing_id)
            return
        del self._opens[node]
        if backing_id != _CACHED:
            try:
                fcntl.ioctl(self._fuse_fd, _BACKING_CLOSE, _BACKING_ID.pack(backing_id))
            except OSError as error:
                log.debug("backing id %d: %s", backing_id, error)

    def foreign_writers(self, node: Node, uid: int) -> bool:
        """Whether an ordinary user other than `uid` may write without requests."""
        return any(writer not in (0, uid) for writer in self.written.get(node, ()))

    def _register(self, real_fd: int) -> int:
        request = bytearray(_BACKING_MAP.pack(real_fd, 0, 0))
        try:
            backing_id: int = fcntl.ioctl(self._fuse_fd, _BACKING_OPEN, request)
            return backing_id
        except OSError as error:
            if error.errno in _NEVER:
                self._fuse_fd = -1
                self.refused(f"the kernel accepts no backing file of this layer ({error.strerror})")
            else:
                log.debug("no backing file: %s", error)
            return _CACHED
