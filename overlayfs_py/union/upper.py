"""The writable part of a stack: the upper layer with its work directory, and the lock on both."""

import fcntl
import os

from overlayfs_py.errors import InUse, LayerError
from overlayfs_py.union.layer import Layer
from overlayfs_py.union.pending import Pending
from overlayfs_py.union.workdir import WorkDir


class Upper:
    """Owns the upper's layer, its work directory and the locks on them; `close` gives them back.

    `indexing`: hard links of the lowers are indexed. `hiding`: how the upper's file system names what was
    removed while it was open; empty where it needs no names for that. `name_max`: bytes of a name.
    """

    def __init__(self, layer: Layer, work: WorkDir, *, durable: bool) -> None:
        """Take over both, opened; InUse when another mount has the upper."""
        self.layer = layer
        self.work = work
        self.pending = Pending(work, layer, durable=durable)
        self.indexing = False
        self.hiding = b""
        self.name_max = os.fstatvfs(layer.root.fd).f_namemax
        self._lock_fd = _lock(layer)

    def close(self) -> None:
        """Idempotent."""
        self.work.close()
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
