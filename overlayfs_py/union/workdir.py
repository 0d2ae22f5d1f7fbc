"""The work directory: temporary names, the index directory, the volatile mark, and the lock on all of it.

Layout as the kernel's: ``WORK/work`` for inodes under construction (emptied at mount),
``WORK/index`` for indexed hard links, ``WORK/work/incompat/volatile`` while data may be lost by a
crash of the machine. ``WORK/nlink`` is ours: how many names went of hard links that have no index entry.

Everything that is not complete, or not needed any more, is in ``WORK/work`` and nowhere else. So a crash
leaves its remains there, and emptying it at the next mount is all the repair that is needed
(ovl_workdir_cleanup). What must survive is kept out of it: the index, the counts, and ``WORK/pending``
(`pending`).

It must be on the upper's file system, as most operations end with a rename from the one to the other.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable

from overlayfs_py.errors import InUse, LayerError
from overlayfs_py.syscalls import attrs
from overlayfs_py.syscalls.trees import remove_tree
from overlayfs_py.syscalls.xattrs import ACL_ACCESS, ACL_DEFAULT
from overlayfs_py.union.descriptors import FdCache, Held
from overlayfs_py.union.layer import O_DIRFD, Layer, Real

_VOLATILE = b"work/incompat/volatile"
# Bytes of a directory that holds a thousand names or more, on most file systems.
_LARGE = 32 * 1024


class WorkDir:
    """Owns the descriptors of its parts and the lock; `temp` is where inodes are made before they get their
    name.

    `lock` comes before `prepare`: what lies in the directory may be another live mount's, being made right
    now.
    """

    def __init__(self, path: bytes, root_fd: int, fds: FdCache[Real], held: Held) -> None:
        self.layer = Layer(path, root_fd, -1, fds, held)
        self._serial = 0
        self._lock_fd = -1
        self.remove_large: Callable[[Callable[[], None]], None] = lambda remove: remove()
        self.unclonable: set[int] = set()  # file systems (st_dev) that share no blocks with copies made here
        self.temp = self.layer.root.child(b"work")
        self.index = self.layer.root.child(b"index")
        self.counts = self.layer.root.child(b"nlink")
        self.counted: set[bytes] = set()  # the names in it

    def lock(self) -> None:
        """Take the directory for this mount; InUse when another one has it. flock(2) ends with the process,
        so a crash leaves no lock behind.
        """
        self._lock_fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.layer.root.fd)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = os.fstat(self._lock_fd)
            raise InUse(f"workdir {os.fsdecode(self.layer.path)}", (found.st_dev, found.st_ino)) from None

    def prepare(self, *, volatile: bool) -> None:
        """Empty the temporary directory and make it anew; LayerError where that fails.

        A crash left nothing there that anything else refers to. The mark of a volatile mount lies there, too,
        and is looked at before it goes: the data it speaks of is in the upper, which cannot be repaired. A
        crash half way leaves less of the same, and the next mount continues.
        """
        root_fd = self.layer.root.fd
        if not volatile:
            self._refuse_lost_data(root_fd)
        try:
            self._empty(root_fd)
            os.mkdir(b"work", 0o700, dir_fd=root_fd)
            _own(root_fd, b"work")
            if volatile:
                os.mkdir(b"work/incompat", 0o700, dir_fd=root_fd)
                os.mkdir(_VOLATILE, 0o700, dir_fd=root_fd)
                self._write_boot_id(root_fd)
        except OSError as e:
            raise LayerError(
                f"workdir {os.fsdecode(self.layer.path)}: cannot be prepared: {e.strerror}"
            ) from None
        self.temp.fd = os.open(b"work", O_DIRFD, dir_fd=root_fd)

    def _empty(self, root_fd: int) -> None:
        """Remove `work`, mostly empty, so one rmdir(2) is enough (bench: start to a usable mount)."""
        with contextlib.suppress(FileNotFoundError):
            try:
                os.rmdir(b"work", dir_fd=root_fd)
            except OSError:
                remove_tree(b"work", dir_fd=root_fd)

    def _refuse_lost_data(self, root_fd: int) -> None:
        """Raise LayerError after a volatile mount of an earlier boot, which may have lost data.

        One of this boot lost none, however it ended: what it wrote is in the page cache. The kernel refuses
        both (ovl_workdir_cleanup_recurse), as it does not know when the mark was made.
        """
        if not os.path.isdir(b"/proc/self/fd/%d/%s" % (root_fd, _VOLATILE)):
            return
        try:
            fd = os.open(_VOLATILE + b"/boot_id", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root_fd)
        except FileNotFoundError:
            same = False
        else:
            with os.fdopen(fd, "rb") as f:
                same = f.read(64) == _boot_id()
        if not same:
            raise LayerError(
                f"workdir {os.fsdecode(self.layer.path)}: a volatile mount was not synced before the machine "
                "stopped; "
                "check the upper and remove work/incompat/volatile there, or start with a new upper"
            )

    def _write_boot_id(self, root_fd: int) -> None:
        fd = os.open(_VOLATILE + b"/boot_id", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root_fd)
        with os.fdopen(fd, "wb") as f:
            f.write(_boot_id())

    def make_index(self) -> None:
        """Open the index directory, made when it is missing. It is never emptied: its entries are names of
        inodes in the upper, and the next mount needs them.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(b"index", 0o700, dir_fd=self.layer.root.fd)
            _own(self.layer.root.fd, b"index")
        self.open_index()
        with contextlib.suppress(FileNotFoundError):
            self._open_counts()

    def open_index(self) -> None:
        """Open the index directory that is there; FileNotFoundError."""
        self.index.fd = os.open(b"index", O_DIRFD, dir_fd=self.layer.root.fd)

    def make_counts(self) -> None:
        """Open the directory of counts, made when it is missing."""
        if self.counts.fd < 0:
            os.mkdir(b"nlink", 0o700, dir_fd=self.layer.root.fd)
            _own(self.layer.root.fd, b"nlink")
            self._open_counts()

    def _open_counts(self) -> None:
        self.counts.fd = os.open(b"nlink", O_DIRFD, dir_fd=self.layer.root.fd)
        self.counted.update(os.fsencode(name) for name in os.listdir(b"/proc/self/fd/%d" % self.counts.fd))

    def temp_name(self) -> bytes:
        """Return a name not used before in `temp`. Names are counted and never used again, so what could not
        be removed is not in the way, and no check for an existing name is needed.
        """
        self._serial += 1
        return b"#%x" % self._serial

    def new_temp(self) -> Real:
        """A fresh entry of `temp`; nothing is created."""
        return Real(self.layer, self.temp, self.temp_name())

    def discard(self, real: Real) -> None:
        """Remove a temporary inode, directory or not; it may be gone already. For a large directory
        `remove_large` says when, and in which thread.

        Errors are ignored: nothing refers to it, and the next mount removes what is left.
        """
        fd, name = real.at()
        with contextlib.suppress(OSError):
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                if os.stat(name, dir_fd=fd, follow_symlinks=False).st_size <= _LARGE:
                    remove_tree(name, dir_fd=fd)
                else:
                    own_fd = os.dup(fd)
                    self.remove_large(lambda: _remove_and_close(name, own_fd))

    def close(self) -> None:
        """Give back the lock and the descriptors; idempotent."""
        for name in ("temp", "index", "counts"):
            real: Real | None = getattr(self, name, None)
            if real is not None and real.fd >= 0:
                os.close(real.fd)
                real.fd = -1
        self.layer.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _remove_and_close(name: bytes, dir_fd: int) -> None:
    """Remove a directory of `dir_fd`, which is closed; what stays the next mount removes."""
    try:
        with contextlib.suppress(OSError):
            remove_tree(name, dir_fd=dir_fd)
    finally:
        os.close(dir_fd)


def _own(dir_fd: int, name: bytes) -> None:
    """What is made in this directory must inherit neither ACL nor group of the work directory (CVE-2016-1575,
    ovl_workdir_create).
    """
    for acl_name in (ACL_DEFAULT, ACL_ACCESS):
        with contextlib.suppress(OSError):
            os.removexattr(b"/proc/self/fd/%d/%s" % (dir_fd, name), acl_name, follow_symlinks=False)
    os.chown(name, -1, os.getegid(), dir_fd=dir_fd, follow_symlinks=False)
    attrs.set_mode(dir_fd, name, 0o700)


def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", "rb") as f:
        return f.read(64).strip()
