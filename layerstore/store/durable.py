"""Small crash-safe file operations: whole-file replacement, tree removal, directory fsync."""

import os
import secrets
import stat
from pathlib import Path

from layerstore.errors import LayerstoreError, LimitExceeded
from layerstore.store.locking import TEMP_PREFIX
from overlayfs_py.syscalls.attrs import set_mode
from overlayfs_py.syscalls.dirents import DT_DIR, read_dirents

_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fsync_dir(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a small file so that any reader, and any crash, sees the old or the new content whole.

    The caller holds a lock that keeps others from writing the same file: the temporary name is always the
    same.
    """
    temp = path.with_name(TEMP_PREFIX + path.name)
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def open_regular(path: Path) -> int:
    """Open a regular file for reading; the caller owns the fd. A symbolic link or special file is refused."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise LayerstoreError(f"{path} is not a regular file")


def read_capped(path: Path, limit: int, name: str = "") -> bytes:
    """The whole of a regular file that may not be longer than `limit`, which users know as `name`."""
    with open(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise LimitExceeded(f"{path} is larger than {limit} bytes", name)
    return data


def remove_tree(path: Path) -> None:
    """Remove a directory tree without following links, also where its directories keep an ordinary user
    out.

    A tree of any depth takes neither recursion nor descriptors nor long paths: each directory is emptied of
    its files, its subdirectories are moved up to the top, and then it is removed.
    """
    is_kept_out = os.geteuid() != 0
    if is_kept_out:
        os.chmod(path, 0o700)
    top_fd = os.open(path, _O_DIRECTORY)
    try:
        prefix, count = os.fsencode(TEMP_PREFIX + secrets.token_hex(8)), 0
        pending = _without_files(top_fd)
        while pending:
            name = pending.pop()
            fd = _open_to_empty(top_fd, name, is_kept_out)
            try:
                for below in _without_files(fd):
                    if is_kept_out:
                        set_mode(fd, below, 0o700)  # moving a directory writes to it
                    count += 1
                    pending.append(b"%b-%d" % (prefix, count))
                    os.rename(below, pending[-1], src_dir_fd=fd, dst_dir_fd=top_fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top_fd)
    finally:
        os.close(top_fd)
    os.rmdir(path)


def _open_to_empty(dir_fd: int, name: bytes, is_kept_out: bool) -> int:
    if is_kept_out:
        set_mode(dir_fd, name, 0o700)
    return os.open(name, _O_DIRECTORY, dir_fd=dir_fd)


def _without_files(dir_fd: int) -> list[bytes]:
    """Unlink all but the directories; the names of those."""
    directories = []
    for name, _, kind in read_dirents(dir_fd):
        if kind == DT_DIR:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=dir_fd)
    return directories
