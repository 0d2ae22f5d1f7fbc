"""Disk usage: allocated blocks, each hard-linked file once, symbolic links not followed."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from overlayfs_py.syscalls import as_owner

_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Gone, not ours to read, replaced, or deeper than a path can be.
_PASSED_OVER = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def file_size(path: Path) -> int:
    """Return the disk usage of one file; 0 when it is gone."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def tree_size(top: Path) -> int:
    """Return the disk usage of a directory tree, without what vanishes meanwhile or may not be read."""
    total = file_size(top)
    linked: set[int] = set()
    with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        top_fd = os.open(top, _O_DIRECTORY)
        try:
            pending = [b"."]
            while pending:
                total += _directory_size(top_fd, pending.pop(), pending, linked)
        finally:
            os.close(top_fd)
    return total


def _directory_size(top_fd: int, path: bytes, pending: list[bytes], linked: set[int]) -> int:
    """Return the disk usage of the entries of one directory; its directories are added to `pending`."""
    total = 0
    try:
        fd = as_owner.open_beneath(top_fd, path, _O_DIRECTORY)
    except OSError as error:
        if error.errno in _PASSED_OVER:
            return 0
        raise
    try:
        for name in map(os.fsencode, os.listdir(fd)):
            with suppress(FileNotFoundError, PermissionError):
                status = as_owner.stat_at(fd, name)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path + b"/" + name)
                elif status.st_nlink > 1:
                    if status.st_ino in linked:
                        continue
                    linked.add(status.st_ino)
                total += status.st_blocks * 512
    finally:
        os.close(fd)
    return total
