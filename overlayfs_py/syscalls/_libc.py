"""The C library through ctypes: one handle, typed functions, and -1 as ``OSError``."""

import ctypes
import functools
import os
from collections.abc import Callable

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000

_libc = ctypes.CDLL(None, use_errno=True)

Function = Callable[..., int]


def function(name: str, *argtypes: type) -> Function:
    """Return the function `name` with its argument types set, so that C code converts the arguments."""
    found = _libc[name]
    found.argtypes = argtypes
    found.restype = ctypes.c_int
    return found


def system_call(number: int, *argtypes: type) -> Function:
    """Return the system call `number`, for calls without a glibc wrapper; new calls have the same number on
    all machines.

    Integer types narrower than a register must be ``c_long``, since syscall(2) is variadic.
    """
    found = _libc["syscall"]  # indexing makes a new object, so these types apply to it alone
    found.argtypes = (ctypes.c_long, *argtypes)
    found.restype = ctypes.c_long
    return functools.partial(found, number)


def check(result: int) -> int:
    """Return `result`; raise ``OSError(errno)`` when it is -1."""
    if result < 0:
        raise last_error()
    return result


def last_error() -> OSError:
    """Return this thread's errno after a failed call, as ``OSError``."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
