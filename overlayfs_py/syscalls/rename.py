"""renameat2(2): rename without replacing, exchange two names, or leave a whiteout."""

import ctypes

from overlayfs_py.syscalls._libc import function, last_error

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

_renameat2 = function(
    "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)


def renameat2(src_dir_fd: int, src: bytes, dst_dir_fd: int, dst: bytes, flags: int = 0) -> None:
    """Rename `src` to `dst`. EINVAL: the filesystem does not support a flag. No symbolic link is followed."""
    if _renameat2(src_dir_fd, src, dst_dir_fd, dst, flags) < 0:
        raise last_error()
