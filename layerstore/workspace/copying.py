"""Copy a file or a tree between two open directories: every step by descriptor and name, no link followed.

Files are written under a temporary name and appear complete. They belong to the caller, unless owners are
kept.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from layerstore.errors import LayerstoreError, printable
from layerstore.workspace.resolving import CopyTarget, open_again, open_child, proc_path, read_link
from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.syscalls.openat import open_beneath

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTR = frozenset((errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL))
_SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory that is being copied: both sides, the names left, and its final attributes."""

    src_fd: int
    dst_fd: int
    names: Iterator[bytes]
    status: os.stat_result
    path: bytes


@dataclass(slots=True)
class Copier:
    """Copies to one target. `archive` keeps owners, set-id bits and all xattrs (as far as the caller may)."""

    archive: bool
    note: Callable[[str], None]
    progress: Callable[[int], None] | None = None
    copied: int = 0
    _links: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _top_fd: int = -1

    def copy(self, src_fd: int, target: CopyTarget) -> None:
        """Copy the object of the ``O_PATH`` descriptor `src_fd` to `target`."""
        self._top_fd = target.dir_fd
        status = os.fstat(src_fd)
        if not stat.S_ISDIR(status.st_mode):
            self._copy_other(src_fd, status, target.dir_fd, target.name, target.name)
            return
        levels: list[_Level] = []
        try:
            levels.append(self._enter(src_fd, status, target.dir_fd, target.name, target.name))
            while levels:
                below = self._next(levels[-1])
                if below is not None:
                    levels.append(below)
                    continue
                done = levels.pop()
                self._leave(done)
        finally:
            for level in levels:
                os.close(level.src_fd)
                os.close(level.dst_fd)

    def _next(self, level: _Level) -> _Level | None:
        """Copy entries of a directory up to its next subdirectory, and enter that."""
        for name in level.names:
            path = level.path + b"/" + name if level.path else name
            fd = open_child(level.src_fd, name, path)
            if fd is None:
                continue
            try:
                status = os.fstat(fd)
                if stat.S_ISDIR(status.st_mode):
                    return self._enter(fd, status, level.dst_fd, name, path)
                self._copy_other(fd, status, level.dst_fd, name, path)
            finally:
                os.close(fd)
        return None

    def _enter(
        self, src_fd: int, status: os.stat_result, dst_dir_fd: int, name: bytes, path: bytes
    ) -> _Level:
        top = os.fstat(self._top_fd)
        if (status.st_dev, status.st_ino) == (top.st_dev, top.st_ino):
            raise LayerstoreError("a directory cannot be copied into itself")
        if name:
            try:
                os.mkdir(name, 0o700, dir_fd=dst_dir_fd)
            except FileExistsError:
                pass
        try:
            dst_fd = os.open(name or b".", _DIR, dir_fd=dst_dir_fd)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise LayerstoreError(
                    f"cannot overwrite a non-directory with a directory: {printable(path)}"
                ) from None
            raise
        try:
            fd = open_again(src_fd, os.O_RDONLY | os.O_DIRECTORY, path)
        except BaseException:
            os.close(dst_fd)
            raise
        return _Level(fd, dst_fd, iter(sorted(map(os.fsencode, os.listdir(fd)))), status, path)

    def _leave(self, level: _Level) -> None:
        try:
            self._dress(level.src_fd, level.dst_fd, level.status)
        finally:
            os.close(level.src_fd)
            os.close(level.dst_fd)

    def _copy_other(self, src_fd: int, status: os.stat_result, dst_fd: int, name: bytes, path: bytes) -> None:
        if stat.S_ISSOCK(status.st_mode):
            self.note(f"{printable(path)} is a socket and is not copied")
            return
        temp = b".tmp-" + secrets.token_hex(8).encode()
        try:
            if not self._link(status, dst_fd, temp, path):
                self._make(src_fd, status, dst_fd, temp)
            os.rename(temp, name, src_dir_fd=dst_fd, dst_dir_fd=dst_fd)
        except OSError as error:
            if error.errno == errno.EISDIR:
                raise LayerstoreError(
                    f"cannot overwrite a directory with a non-directory: {printable(path)}"
                ) from None
            raise OSError(error.errno, error.strerror, printable(path)) from None
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temp, dir_fd=dst_fd)

    def _link(self, status: os.stat_result, dst_fd: int, temp: bytes, path: bytes) -> bool:
        """Link a further name of a file that was copied before to its copy."""
        if status.st_nlink < 2 or stat.S_ISLNK(status.st_mode):
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        try:
            fd = open_beneath(self._top_fd, first, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            os.link(proc_path(fd), temp, dst_dir_fd=dst_fd, follow_symlinks=True)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _make(self, src_fd: int, status: os.stat_result, dst_fd: int, temp: bytes) -> None:
        if stat.S_ISREG(status.st_mode):
            self._make_file(src_fd, status, dst_fd, temp)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(read_link(src_fd), temp, dir_fd=dst_fd)
        else:
            os.mknod(temp, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=dst_fd)
            _chmod(temp, self._mode(status), dst_fd)
        if self.archive:
            os.chown(temp, status.st_uid, status.st_gid, dir_fd=dst_fd, follow_symlinks=False)
        _set_times(temp, status, dst_fd)

    def _make_file(self, src_fd: int, status: os.stat_result, dst_fd: int, temp: bytes) -> None:
        source = as_owner.open_at(src_fd, b"", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            made = os.open(temp, _NEW, 0o600, dir_fd=dst_fd)
            try:
                copy_data(source, made, os.fstat(source).st_size)
                self._dress(source, made, status)
            finally:
                os.close(made)
        finally:
            os.close(source)
        self.copied += status.st_size
        if self.progress is not None:
            self.progress(self.copied)

    def _dress(self, src_fd: int, dst_fd: int, status: os.stat_result) -> None:
        """Set the owner, then the mode (chown clears bits of it), xattrs, times."""
        if self.archive:
            os.fchown(dst_fd, status.st_uid, status.st_gid)
        os.fchmod(dst_fd, self._mode(status))
        for name in _listed(src_fd):
            if self.archive or name.startswith("user."):
                try:
                    as_owner.setxattr_at(dst_fd, b"", name, as_owner.getxattr_at(src_fd, b"", name))
                except OSError as error:
                    if error.errno not in _NO_XATTR:
                        raise
        os.utime(dst_fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _mode(self, status: os.stat_result) -> int:
        """Return the mode without set-id bits unless the owner is kept: they would mean another user."""
        mode = stat.S_IMODE(status.st_mode)
        if self.archive or stat.S_ISDIR(status.st_mode):
            return mode
        return mode & ~_SET_ID


def _listed(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return []
        raise


def _chmod(name: bytes, mode: int, dir_fd: int) -> None:
    """Change the mode by descriptor: chmod(2) of a name would follow a link."""
    fd = os.open(name, _NODE, dir_fd=dir_fd)
    try:
        os.chmod(proc_path(fd), mode)
    finally:
        os.close(fd)


def _set_times(name: bytes, status: os.stat_result, dir_fd: int) -> None:
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
