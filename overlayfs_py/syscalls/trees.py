"""Removing a directory tree of any depth, which neither recursion nor long paths can do."""

import os
import secrets

from overlayfs_py.syscalls.attrs import set_mode
from overlayfs_py.syscalls.dirents import DT_DIR, read_dirents

_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(name: bytes, *, dir_fd: int | None = None) -> None:
    """Remove directory `name` (below `dir_fd`, which stays the caller's) and all in it; no link is followed.

    Directories that keep an ordinary user out are opened up first. Each directory is emptied of its files,
    its subdirectories are moved up to the top, and then it goes.
    """
    kept_out = os.geteuid() != 0
    top_fd = _open_to_empty(name, dir_fd, kept_out)
    try:
        prefix, count = b".removed-" + secrets.token_hex(8).encode(), 0
        pending = _without_files(top_fd)
        while pending:
            child = pending.pop()
            fd = _open_to_empty(child, top_fd, kept_out)
            try:
                for below in _without_files(fd):
                    if kept_out:
                        set_mode(fd, below, 0o700)  # moving a directory writes to it
                    count += 1
                    pending.append(b"%b-%d" % (prefix, count))
                    os.rename(below, pending[-1], src_dir_fd=fd, dst_dir_fd=top_fd)
            finally:
                os.close(fd)
            os.rmdir(child, dir_fd=top_fd)
    finally:
        os.close(top_fd)
    os.rmdir(name, dir_fd=dir_fd)


def _open_to_empty(name: bytes, dir_fd: int | None, kept_out: bool) -> int:
    if kept_out and dir_fd is not None:
        set_mode(dir_fd, name, 0o700)
    elif kept_out:
        os.chmod(name, 0o700)
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
