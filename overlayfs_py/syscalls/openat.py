"""Open beneath a directory (openat2), and clone a directory as a private mount (open_tree)."""

import contextlib
import ctypes
import errno
import os
import struct

from overlayfs_py.syscalls._libc import AT_FDCWD, check, last_error, system_call
from overlayfs_py.syscalls.bind import spare_access_times

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

_CREATING = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
_ATTEMPTS = 1000

_open_how = struct.Struct("=QQQ")
_openat2 = system_call(437, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_open_tree = system_call(428, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)


def open_beneath(dir_fd: int, path: bytes, flags: int, mode: int = 0, *, one_mount: bool = False) -> int:
    """Open `path` beneath `dir_fd`; the caller owns the descriptor, which is close-on-exec.

    No symbolic link is followed anywhere in `path` (ELOOP; the last component itself can be opened with
    ``O_PATH | O_NOFOLLOW``), and neither ``..`` nor an absolute path leaves `dir_fd` (EXDEV). `mode` counts
    only when `flags` create a file; the umask applies to it as usual. `one_mount`: do not enter other mounts,
    on the way or at the end (EXDEV).
    """
    return _open(dir_fd, path, flags, mode, _RESOLVE | (RESOLVE_NO_XDEV if one_mount else 0))


def open_in_root(root_fd: int, path: bytes, flags: int) -> int:
    """Open `path` as a process whose root is `root_fd` would; the caller owns the close-on-exec descriptor.

    Symbolic links are followed, but like ``..`` and a leading slash they never lead out of `root_fd`, even if
    another process changes the path meanwhile; the magic links of /proc are refused (ELOOP).
    """
    return _open(root_fd, path, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def _open(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _open_how.pack(flags | os.O_CLOEXEC, mode if flags & _CREATING else 0, resolve)
    for _ in range(_ATTEMPTS):
        fd = _openat2(dir_fd, path, how, _open_how.size)
        if fd >= 0:
            return fd
        error = last_error()
        # EAGAIN: a concurrent rename, so that the kernel could not check whether ".." stays beneath.
        # EINTR: a signal, while a FIFO or a network file system made the open wait.
        if error.errno not in (errno.EAGAIN, errno.EINTR):
            break
    raise error


def clone_tree(path: bytes) -> int:
    """Return a readable directory descriptor in a private mount of `path`; the caller owns it.

    Mounts below the directory, present and future, do not appear in it, and reading through it changes no
    access times, also not of symlinks (as in ovl_get_layers). The mount lives as long as anything opened
    through it. Needs CAP_SYS_ADMIN (EPERM).
    """
    tree_fd = check(_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC))
    try:
        with contextlib.suppress(OSError):  # an old kernel
            spare_access_times(tree_fd)
        # open_tree returns an O_PATH descriptor, which allows no read, fsync or ioctl.
        return os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree_fd)
    finally:
        os.close(tree_fd)
