"""The C library by ctypes: one handle, typed functions and the translation of -1 into ``OSError``."""

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
    """The library's function `name` with its argument types set once: conversions are then done in C."""
    found = _libc[name]
    found.argtypes = argtypes
    found.restype = ctypes.c_int
    return found


def system_call(number: int, *argtypes: type) -> Function:
    """The system call `number`, for which glibc has no wrapper (new calls have one number on all machines).

    The result takes the call's own arguments. Integer types narrower than a register have to be given as
    ``c_long``, since syscall(2) is variadic.
    """
    found = _libc["syscall"]  # indexing makes a new object each time, so the types set here are its own
    found.argtypes = (ctypes.c_long, *argtypes)
    found.restype = ctypes.c_long
    return functools.partial(found, number)


def check(result: int) -> int:
    """`result`, or ``OSError(errno)`` when it is -1."""
    if result < 0:
        raise last_error()
    return result


def last_error() -> OSError:
    """This thread's errno after a failed call, as the matching subclass of ``OSError``."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
