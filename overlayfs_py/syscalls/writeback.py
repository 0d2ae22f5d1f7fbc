"""Start writing a file's pages to the disk before a sync waits for them."""

import ctypes

from overlayfs_py.syscalls._libc import function

_WRITE = 2  # SYNC_FILE_RANGE_WRITE

_sync_file_range = function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writeback(fd: int, offset: int, count: int) -> None:
    """Start writing these bytes out, so that a later sync waits less.

    Only that sync makes them durable and reports errors; this call reports none.
    """
    _sync_file_range(fd, offset, count, _WRITE)
