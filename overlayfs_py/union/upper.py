"""The topmost part of a stack: the upper layer with its work directory, locked where it is written to."""

import errno
import fcntl
import os

from overlayfs_py.errors import InUse, LayerError, fail
from overlayfs_py.union.layer import Layer
from overlayfs_py.union.pending import Pending
from overlayfs_py.union.workdir import WorkDir


class Upper:
    """Owns the upper's layer, its work directory and the locks on them; `close` gives them back.

    `indexing`: hard links of the lowers are indexed. `silly_rename_prefix`: how the names begin under which
    the upper's file system keeps files that are removed while they are open; empty where it needs none.
    `name_max`: bytes of a name.
    """

    def __init__(self, layer: Layer, work: WorkDir | None, *, indexing: bool = False) -> None:
        """Take over both, opened. Without a work directory the upper can only be read."""
        self.layer = layer
        self._work = work
        self.indexing = indexing
        self.silly_rename_prefix = b""
        self.name_max = os.fstatvfs(layer.root.fd).f_namemax
        self._lock_fd = -1
        self._pending: Pending | None = None

    @property
    def work(self) -> WorkDir:
        """Where inodes are made; EROFS without one."""
        if self._work is None:
            fail(errno.EROFS)
        return self._work

    def take(self, *, durable: bool) -> None:
        """Lock both for one mount, which will write; InUse when another one has either. `durable`: what it
        writes has to survive a crash of the machine.
        """
        self.work.lock()
        self._lock_fd = _lock(self.layer)
        self._pending = Pending(self.work, self.layer, durable=durable)

    @property
    def pending(self) -> Pending:
        """Renames of several steps; EROFS where nothing is written."""
        if self._pending is None:
            fail(errno.EROFS)
        return self._pending

    def close(self) -> None:
        """Idempotent."""
        if self._work is not None:
            self._work.close()
        self.layer.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _lock(upper: Layer) -> int:
    """A descriptor that holds the lock on an upper: two mounts, each with a workdir of its own, would not see
    what the other has changed. (The kernel refuses it with index=on, EBUSY.)
    """
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper.root.fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        found = os.fstat(fd)
        os.close(fd)
        if isinstance(e, BlockingIOError):
            raise InUse(f"upperdir {os.fsdecode(upper.path)}", (found.st_dev, found.st_ino)) from None
        raise LayerError(f"upperdir {os.fsdecode(upper.path)}: cannot be locked: {e.strerror}") from None
    return fd
