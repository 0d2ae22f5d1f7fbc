"""Starting to write a file's pages to the disk before anybody waits for them."""

import ctypes

from overlayfs_py.syscalls._libc import function

_WRITE = 2  # SYNC_FILE_RANGE_WRITE

_sync_file_range = function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writeback(fd: int, offset: int, count: int) -> None:
    """Let the kernel begin to write these bytes out, so that the sync that follows has less to wait for.

    Durable is only what is synced afterwards, which also tells of errors; none is told here.
    """
    _sync_file_range(fd, offset, count, _WRITE)
