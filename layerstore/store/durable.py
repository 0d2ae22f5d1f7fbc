"""Small crash-safe file operations: replace a file, fsync a directory, read only regular files."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import LayerstoreError, LimitExceeded
from layerstore.store.locking import TEMP_PREFIX
from overlayfs_py.syscalls.rename import RENAME_EXCHANGE, renameat2

_AT_FDCWD = -100
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """Within, give errors of write(2) without room the name `path`, as the system gives none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            error.filename = os.fspath(path)
        raise


@contextmanager
def opened_dir(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Yield a descriptor of a directory, closed at the end."""
    fd = os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def fsync_dir(directory: Path) -> None:
    """Make the names in a directory durable."""
    with opened_dir(directory) as fd:
        os.fsync(fd)


def exchange(one: Path, other: Path) -> None:
    """Exchange two names in one step; the caller makes that durable. LayerstoreError where the file system
    cannot.
    """
    try:
        renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    except OSError as error:
        if error.errno == errno.EINVAL:
            why = "cannot exchange two names, which this needs"
            raise LayerstoreError(f"the file system of {other.parent} {why}") from None
        raise


def mode_in(directory: Path) -> int:
    """Return the mode of a new file: readable to those who may read its directory, whatever the umask."""
    return directory.stat().st_mode & 0o044 | 0o600


def replace_file(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace a small file so that readers, also after a crash, see the old content or the new one, whole.

    Without `mode` it is readable to those who may read its directory.

    The caller holds a lock that excludes other writers of the file: the temporary name is always the same.
    """
    temp = path.with_name(TEMP_PREFIX + path.name)
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with filling(path), open(fd, "wb") as file:
            os.fchmod(fd, mode_in(path.parent) if mode is None else mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def open_regular(path: Path) -> int:
    """Open a regular file to read; the caller owns the fd. LayerstoreError for a symlink or special file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise LayerstoreError(f"{path} is not a regular file")


def read_capped(path: Path, limit: int, name: str = "") -> bytes:
    """Return the content of a regular file of at most `limit` bytes; `name` is the limit's name for users."""
    with open(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise LimitExceeded(f"{path} is larger than {limit} bytes", name)
    return data
