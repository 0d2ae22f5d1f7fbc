"""Give back freed memory that the interpreter and the C library keep for later."""

import ctypes
import gc

from overlayfs_py.syscalls._libc import Function, function

try:
    _trim: Function | None = function("malloc_trim", ctypes.c_size_t)
except AttributeError:  # only glibc has it
    _trim = None


def give_back() -> None:
    """Return freed memory to the system, as far as possible (benchmarks: memory after they are forgotten).

    This takes time in proportion to the memory in use. It needs a full collection, since a few thousand free
    objects can hold all the interpreter's memory.
    """
    gc.collect()
    if _trim is not None:
        _trim(0)
