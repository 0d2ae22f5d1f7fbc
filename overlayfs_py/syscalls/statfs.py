"""The type of a file system, which os.statvfs leaves out."""

import ctypes

from overlayfs_py.syscalls._libc import check, function

_STATFS_SIZE = 256  # larger than struct statfs on every architecture
_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def filesystem_type(fd: int) -> int:
    """statfs(2)'s f_type of the descriptor's file system, O_PATH descriptors included."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    check(_fstatfs(fd, buffer))
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF
