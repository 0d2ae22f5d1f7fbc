"""System calls on a name in an open directory, each also by its own name, so that another process can do it.

The name b"" means what the descriptor is of (``O_PATH`` too). No link is followed.
"""

import os
from collections.abc import Callable
from typing import Any

from overlayfs_py.syscalls import openat

Call = tuple[Any, ...]  # which of `_CALLS`, the name, and its other arguments


def path_of(dir_fd: int, name: bytes) -> bytes:
    # Before Linux 6.13 there is no listxattrat and the like; the path through the descriptor avoids a walk.
    return b"/proc/self/fd/%d/%b" % (dir_fd, name) if name else b"/proc/self/fd/%d" % dir_fd


def open_at(dir_fd: int, name: bytes, flags: int) -> int:
    if name:
        return os.open(name, flags, dir_fd=dir_fd)
    return os.open(path_of(dir_fd, b""), flags & ~os.O_NOFOLLOW)


def listxattr_at(dir_fd: int, name: bytes) -> list[str]:
    return os.listxattr(path_of(dir_fd, name), follow_symlinks=not name)


def getxattr_at(dir_fd: int, name: bytes, xattr: str) -> bytes:
    return os.getxattr(path_of(dir_fd, name), xattr, follow_symlinks=not name)


def setxattr_at(dir_fd: int, name: bytes, xattr: str, value: bytes, flags: int) -> None:
    os.setxattr(path_of(dir_fd, name), xattr, value, flags, follow_symlinks=not name)


def removexattr_at(dir_fd: int, name: bytes, xattr: str) -> None:
    os.removexattr(path_of(dir_fd, name), xattr, follow_symlinks=not name)


_CALLS: dict[str, Callable[..., object]] = {
    "open": open_at,
    "open_in_root": openat.open_in_root,
    "getxattr": getxattr_at,
    "setxattr": setxattr_at,
    "removexattr": removexattr_at,
}


def perform(dir_fd: int, call: Call) -> object:
    """Make the call; return a descriptor, a value, or nothing."""
    return _CALLS[call[0]](dir_fd, *call[1:])
