"""The table of operations and their interpreter: a sequence is data, so it prints, and replays.

An operation is a tuple ``(user, name, *arguments)``. Files held open live in numbered slots, a few
for each user. Its outcome is a plain value: ``("ok", result)`` or ``("error", "ENOENT")``.
"""

import contextlib
import errno
import os
import stat
import traceback
from collections.abc import Callable

from tests import rawcalls
from tests.oracle.vfs import Vfs, is_special
from tests.snapshots import Status

Operation = tuple[object, ...]
Outcome = tuple[str, object]

# Operations that only some engines can answer; a capability has the same name as the operation.
OPTIONAL = frozenset({"fallocate", "seek", "copy_range", "map_read", "map_write", "tmpfile"})


def visible(status: Status) -> tuple[object, ...]:
    """What two file systems must agree on in a stat; a directory's size and nlink are their own."""
    directory = stat.S_ISDIR(status.mode)
    return (
        stat.filemode(status.mode),
        None if directory else status.nlink,
        status.uid,
        status.gid,
        None if directory or stat.S_ISBLK(status.mode) else status.size,
        status.rdev,
    )


class Interpreter:
    """Runs operations for one user on one tree and keeps that user's open files."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._slots: dict[int, int] = {}
        # Where in the code under test the last error came from, when it runs in this process.
        self.raised_at: list[str] = []

    def run(self, name: str, arguments: tuple[object, ...]) -> Outcome:
        try:
            return ("ok", TABLE[name](self, *arguments))
        except OSError as error:
            self.raised_at = [
                f"{frame.filename.rpartition('overlayfs_py/')[2]}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
                if "overlayfs_py/" in frame.filename
            ]
            return ("error", rawcalls.errno_name(error))

    def close_all(self) -> None:
        for fd in self._slots.values():
            self._vfs.close(fd)
        self._slots.clear()

    def _held(self, slot: int) -> int:
        """An empty slot is EBADF, as a closed descriptor is."""
        if slot not in self._slots:
            raise OSError(errno.EBADF, "nothing open in this slot")
        return self._slots[slot]

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> object:
        """Special files are left closed: the kernel opens them without asking the file system."""
        if slot in self._slots:
            self._vfs.close(self._slots.pop(slot))
        with contextlib.suppress(OSError):
            if is_special(self._vfs.status(path, not flags & os.O_NOFOLLOW).mode):
                return "special"
        self._slots[slot] = self._vfs.open(path, flags | os.O_NONBLOCK, mode)
        return visible(self._vfs.fstatus(self._slots[slot]))

    def close(self, slot: int) -> None:
        fd = self._held(slot)
        del self._slots[slot]
        self._vfs.close(fd)

    def read(self, slot: int, size: int) -> bytes:
        return self._vfs.read(self._held(slot), size)

    def write(self, slot: int, data: bytes) -> int:
        return self._vfs.write(self._held(slot), data)

    def pread(self, slot: int, size: int, offset: int) -> bytes:
        return self._vfs.pread(self._held(slot), size, offset)

    def pwrite(self, slot: int, data: bytes, offset: int) -> int:
        return self._vfs.pwrite(self._held(slot), data, offset)

    def fstat(self, slot: int) -> object:
        return visible(self._vfs.fstatus(self._held(slot)))

    def is_removed(self, slot: int) -> object:
        """Whether this is a directory without a name, by its own account; only the duel asks."""
        status = self._vfs.fstatus(self._held(slot))
        return stat.S_ISDIR(status.mode) and status.nlink == 0

    def ftruncate(self, slot: int, size: int) -> None:
        self._vfs.ftruncate(self._held(slot), size)

    def fchmod(self, slot: int, mode: int) -> None:
        self._vfs.fchmod(self._held(slot), mode)

    def fchown(self, slot: int, uid: int, gid: int) -> None:
        self._vfs.fchown(self._held(slot), uid, gid)

    def fsetxattr(self, slot: int, name: bytes, value: bytes) -> None:
        self._vfs.fsetxattr(self._held(slot), name, value)

    def fgetxattr(self, slot: int, name: bytes) -> bytes:
        return self._vfs.fgetxattr(self._held(slot), name)

    def fsync(self, slot: int) -> None:
        self._vfs.fsync(self._held(slot))

    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        self._vfs.fallocate(self._held(slot), mode, offset, length)

    def seek(self, slot: int, offset: int, whence: int) -> int:
        """Of files; positions in directories are seekdir's business."""
        if stat.S_ISDIR(self._vfs.fstatus(self._held(slot)).mode):
            raise OSError(errno.EISDIR, "a directory")
        return self._vfs.seek(self._held(slot), offset, whence)

    def copy_range(self, slot: int, offset: int, out_slot: int, out_offset: int, size: int) -> int:
        return self._vfs.copy_range(self._held(slot), offset, self._held(out_slot), out_offset, size)

    def map_read(self, slot: int, offset: int, size: int) -> bytes:
        return self._vfs.map_read(self._held(slot), offset, size)

    def map_write(self, slot: int, offset: int, data: bytes) -> None:
        self._vfs.map_write(self._held(slot), offset, data)

    def tmpfile(self, directory: bytes, mode: int, data: bytes, path: bytes) -> None:
        self._vfs.tmpfile(directory, mode, data, path)

    def fdlist(self, slot: int) -> object:
        if not stat.S_ISDIR(self._vfs.fstatus(self._held(slot)).mode):
            raise OSError(errno.ENOTDIR, "not a directory")
        return sorted((dirent.name, dirent.d_type) for dirent in self._vfs.dirents(self._held(slot)))

    def stat(self, path: bytes) -> object:
        return visible(self._vfs.status(path, True))

    def lstat(self, path: bytes) -> object:
        return visible(self._vfs.status(path, False))

    def readlink(self, path: bytes) -> bytes:
        return self._vfs.target(path)

    def access(self, path: bytes, mode: int) -> bool:
        return self._vfs.access(path, mode)

    def mkdir(self, path: bytes, mode: int) -> None:
        self._vfs.mkdir(path, mode)

    def rmdir(self, path: bytes) -> None:
        self._vfs.rmdir(path)

    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        self._vfs.mknod(path, mode, rdev)

    def bind(self, path: bytes) -> None:
        self._vfs.bind(path)

    def symlink(self, target: bytes, path: bytes) -> None:
        self._vfs.symlink(target, path)

    def link(self, source: bytes, path: bytes) -> None:
        self._vfs.link(source, path)

    def unlink(self, path: bytes) -> None:
        self._vfs.unlink(path)

    def rename(self, source: bytes, target: bytes, flags: int) -> None:
        self._vfs.rename(source, target, flags)

    def truncate(self, path: bytes, size: int) -> None:
        self._vfs.truncate(path, size)

    def chmod(self, path: bytes, mode: int) -> None:
        self._vfs.chmod(path, mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self._vfs.chown(path, uid, gid)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int, follow: bool) -> None:
        self._vfs.utimens(path, atime_ns, mtime_ns, follow)

    def touch(self, path: bytes) -> None:
        self._vfs.touch(path)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        self._vfs.setxattr(path, name, value, flags)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return self._vfs.getxattr(path, name)

    def listxattr(self, path: bytes) -> list[bytes]:
        return sorted(self._vfs.listxattr(path))

    def removexattr(self, path: bytes, name: bytes) -> None:
        self._vfs.removexattr(path, name)

    def readdir(self, path: bytes) -> object:
        fd = self._vfs.open(path, os.O_RDONLY | os.O_DIRECTORY, 0)
        try:
            return sorted((dirent.name, dirent.d_type) for dirent in self._vfs.dirents(fd))
        finally:
            self._vfs.close(fd)

    def seekdir(self, path: bytes, first: int) -> list[bytes]:
        return sorted(self._vfs.list_in_pieces(path, first))

    def cat(self, path: bytes) -> bytes:
        """Open, read, close: the commonest use of a file."""
        if is_special(self._vfs.status(path, True).mode):
            return b""
        fd = self._vfs.open(path, os.O_RDONLY, 0)
        try:
            return self._vfs.pread(fd, 1 << 20, 0)
        finally:
            self._vfs.close(fd)

    def statfs(self, path: bytes) -> object:
        return self._vfs.statfs(path)

    def umask(self, mask: int) -> int:
        return self._vfs.umask(mask)


# The table: every public method but the two that run it is an operation.
TABLE: dict[str, Callable[..., object]] = {
    name: function
    for name, function in vars(Interpreter).items()
    if callable(function) and not name.startswith("_") and name not in {"run", "close_all"}
}

# Which arguments of an operation are paths: what it may have touched.
_PATHS = {
    "open": (1,),
    "symlink": (1,),
    "link": (0, 1),
    "rename": (0, 1),
    "tmpfile": (0, 3),
}
_DATA = "read write pread pwrite fsync fallocate seek copy_range ftruncate map_read map_write"
_STATE = "close fstat fchmod fchown fsetxattr fgetxattr fdlist"
HANDLE_OPERATIONS = frozenset(_DATA.split() + _STATE.split())


def paths_of(name: str, arguments: tuple[object, ...]) -> list[bytes]:
    """The paths an operation names, and their parents."""
    if name == "umask" or name in HANDLE_OPERATIONS or name not in TABLE:
        return []
    named = [argument for index in _PATHS.get(name, (0,)) if isinstance(argument := arguments[index], bytes)]
    return sorted({path for each in named for path in (each, os.path.dirname(each))})
