"""The operations a sequence can do, as one interface, and the one that calls the operating system.

Paths are bytes relative to the root of the tree under test. Methods raise OSError and return plain
values; handles are small integers that the caller keeps.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
from typing import Protocol

from tests import rawcalls
from tests.snapshots import Dirent, Status, status_of


class Vfs(Protocol):
    """One user's view of a tree."""

    def open(self, path: bytes, flags: int, mode: int) -> int: ...
    def close(self, fd: int) -> None: ...
    def read(self, fd: int, size: int) -> bytes: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def pwrite(self, fd: int, data: bytes, offset: int) -> int: ...
    def fstatus(self, fd: int) -> Status: ...
    def ftruncate(self, fd: int, size: int) -> None: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def fchown(self, fd: int, uid: int, gid: int) -> None: ...
    def fsetxattr(self, fd: int, name: bytes, value: bytes) -> None: ...
    def fgetxattr(self, fd: int, name: bytes) -> bytes: ...
    def fsync(self, fd: int) -> None: ...
    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None: ...
    def seek(self, fd: int, offset: int, whence: int) -> int: ...
    def copy_range(self, fd: int, offset: int, out_fd: int, out_offset: int, size: int) -> int: ...
    def map_read(self, fd: int, offset: int, size: int) -> bytes: ...
    def map_write(self, fd: int, offset: int, data: bytes) -> None: ...
    def tmpfile(self, directory: bytes, mode: int, data: bytes, path: bytes) -> None: ...
    def dirents(self, fd: int) -> list[Dirent]: ...
    def status(self, path: bytes, follow: bool) -> Status: ...
    def target(self, path: bytes) -> bytes: ...
    def access(self, path: bytes, mode: int) -> bool: ...
    def mkdir(self, path: bytes, mode: int) -> None: ...
    def rmdir(self, path: bytes) -> None: ...
    def mknod(self, path: bytes, mode: int, rdev: int) -> None: ...
    def bind(self, path: bytes) -> None: ...
    def symlink(self, target: bytes, path: bytes) -> None: ...
    def link(self, source: bytes, path: bytes) -> None: ...
    def unlink(self, path: bytes) -> None: ...
    def rename(self, source: bytes, target: bytes, flags: int) -> None: ...
    def truncate(self, path: bytes, size: int) -> None: ...
    def chmod(self, path: bytes, mode: int) -> None: ...
    def chown(self, path: bytes, uid: int, gid: int) -> None: ...
    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int, follow: bool) -> None: ...
    def touch(self, path: bytes) -> None: ...
    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None: ...
    def getxattr(self, path: bytes, name: bytes) -> bytes: ...
    def listxattr(self, path: bytes) -> list[bytes]: ...
    def removexattr(self, path: bytes, name: bytes) -> None: ...
    def list_in_pieces(self, path: bytes, first: int) -> list[bytes]: ...
    def statfs(self, path: bytes) -> tuple[int, int, int]: ...
    def umask(self, mask: int) -> int: ...


class OsVfs:
    """The tree is a directory of the machine; whoever runs this is the user."""

    def __init__(self, root: bytes) -> None:
        self._root = root

    def _at(self, path: bytes) -> bytes:
        return self._root + b"/" + path

    def open(self, path: bytes, flags: int, mode: int) -> int:
        return os.open(self._at(path), flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def read(self, fd: int, size: int) -> bytes:
        return os.read(fd, size)

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def fstatus(self, fd: int) -> Status:
        return status_of(os.fstat(fd))

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        os.fchown(fd, uid, gid)

    def fsetxattr(self, fd: int, name: bytes, value: bytes) -> None:
        os.setxattr(fd, name, value)

    def fgetxattr(self, fd: int, name: bytes) -> bytes:
        return os.getxattr(fd, name)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        rawcalls.fallocate(fd, mode, offset, length)

    def seek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(fd, offset, whence)

    def copy_range(self, fd: int, offset: int, out_fd: int, out_offset: int, size: int) -> int:
        return os.copy_file_range(fd, out_fd, size, offset, out_offset)

    def map_read(self, fd: int, offset: int, size: int) -> bytes:
        """Never past the end of the file, which would be a signal; nor of a file opened for reading alone,
        which in the kernel's overlayfs may still be the lower one.
        """
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise OSError(errno.EACCES, "not open for writing")
        size = min(size, os.fstat(fd).st_size - offset)
        if size <= 0:
            return b""
        with mmap.mmap(fd, offset + size, mmap.MAP_SHARED, mmap.PROT_READ) as area:
            return area[offset : offset + size]

    def map_write(self, fd: int, offset: int, data: bytes) -> None:
        """A capability is dropped by hand first: see deviations.py on writes through mappings."""
        with contextlib.suppress(OSError):
            os.removexattr(fd, b"security.capability")
        size = min(len(data), os.fstat(fd).st_size - offset)
        if size <= 0:
            return
        with mmap.mmap(fd, offset + size, mmap.MAP_SHARED) as area:
            area[offset : offset + size] = data[:size]
            area.flush()

    def tmpfile(self, directory: bytes, mode: int, data: bytes, path: bytes) -> None:
        """O_TMPFILE, written, then linked to `path`; an empty `path` leaves it nameless."""
        fd = os.open(self._at(directory), os.O_TMPFILE | os.O_RDWR, mode)
        try:
            os.write(fd, data)
            if path:
                # A directory descriptor is the only way to make os.link follow the /proc link.
                os.link(b"/proc/self/fd/%d" % fd, self._at(path), src_dir_fd=fd, follow_symlinks=True)
        finally:
            os.close(fd)

    def dirents(self, fd: int) -> list[Dirent]:
        return [Dirent(name, ino, d_type) for name, ino, d_type, _ in rawcalls.list_dir(fd)]

    def status(self, path: bytes, follow: bool) -> Status:
        return status_of(os.stat(self._at(path), follow_symlinks=follow))

    def target(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    def access(self, path: bytes, mode: int) -> bool:
        return os.access(self._at(path), mode, effective_ids=True)

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        os.mknod(self._at(path), mode, rdev)

    def bind(self, path: bytes) -> None:
        """bind(2) of a socket; through its directory's descriptor, as sun_path is short."""
        parent_fd = os.open(os.path.dirname(self._at(path)), os.O_PATH | os.O_DIRECTORY)
        try:
            name = os.path.basename(path)
            if len(name) > 60:
                raise OSError(36, "longer than sun_path takes")
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(b"/proc/self/fd/%d/%s" % (parent_fd, name))
        finally:
            os.close(parent_fd)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))

    def link(self, source: bytes, path: bytes) -> None:
        os.link(self._at(source), self._at(path), follow_symlinks=False)

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def rename(self, source: bytes, target: bytes, flags: int) -> None:
        rawcalls.renameat2(self._at(source), self._at(target), flags)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._at(path), size)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.lchown(self._at(path), uid, gid)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int, follow: bool) -> None:
        os.utime(self._at(path), ns=(atime_ns, mtime_ns), follow_symlinks=follow)

    def touch(self, path: bytes) -> None:
        os.utime(self._at(path))

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=False)

    def listxattr(self, path: bytes) -> list[bytes]:
        return [os.fsencode(name) for name in os.listxattr(self._at(path), follow_symlinks=False)]

    def removexattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)

    def list_in_pieces(self, path: bytes, first: int) -> list[bytes]:
        """readdir, seekdir to the entry after number `first`, readdir on: must be the whole list."""
        fd = os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            whole = rawcalls.list_dir(fd)
            if not whole:
                return []
            at = first % len(whole)
            os.lseek(fd, whole[at][3], os.SEEK_SET)
            rest: list[bytes] = []
            while chunk := rawcalls.getdents(fd, 1024):
                rest += [entry[0] for entry in chunk if entry[0] not in (b".", b"..")]
            return [entry[0] for entry in whole[: at + 1]] + rest
        finally:
            os.close(fd)

    def statfs(self, path: bytes) -> tuple[int, int, int]:
        st = os.statvfs(self._at(path))
        return st.f_bsize, st.f_blocks, st.f_namemax

    def umask(self, mask: int) -> int:
        return os.umask(mask)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Turn this process into a user for good; root stays root."""
    if uid == 0:
        return
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Since the uid changed, the kernel marked the process undumpable: /proc/self/fd would be root's.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)


def is_special(mode: int) -> bool:
    """Whether opening it is the kernel's own business: fifos, sockets, devices."""
    return stat.S_IFMT(mode) in {stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}


class LateCopyVfs(OsVfs):
    """For a mount that copies up at the first write (see deviations.py).

    An open for writing is followed by a change of nothing, so that it can be compared at once.
    """

    def open(self, path: bytes, flags: int, mode: int) -> int:
        fd = super().open(path, flags, mode)
        if flags & (os.O_WRONLY | os.O_RDWR) and not flags & os.O_PATH:
            with contextlib.suppress(OSError):
                os.setxattr(fd, b"user.oracle", b"")
                os.removexattr(fd, b"user.oracle")
        return fd
