"""Whether a file has extended attributes at all: one call without a path through /proc (Linux 6.13)."""

import ctypes

from overlayfs_py.syscalls._libc import AT_SYMLINK_NOFOLLOW, system_call

_listxattrat = system_call(
    465, ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t
)


def has_no_xattrs(dir_fd: int, name: bytes) -> bool:
    """True when entry `name` of `dir_fd` certainly has none; False when it has, or that cannot be told."""
    return _listxattrat(dir_fd, name, AT_SYMLINK_NOFOLLOW, None, 0) == 0
