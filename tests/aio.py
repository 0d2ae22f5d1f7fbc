"""Asynchronous I/O of the kernel (libaio's system calls), one request at a time."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_libc = ctypes.CDLL(None, use_errno=True)

_SETUP, _DESTROY, _GETEVENTS, _SUBMIT = (
    (206, 207, 208, 209) if os.uname().machine == "x86_64" else (0, 1, 4, 2)
)
_PWRITE = 1


class _Request(ctypes.Structure):
    """struct iocb"""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_fd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """struct io_event"""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("more", ctypes.c_int64),
    )


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@contextmanager
def context() -> Iterator[ctypes.c_ulong]:
    """Where requests are given to the kernel."""
    made = ctypes.c_ulong(0)
    _checked(_libc.syscall(_SETUP, 1, ctypes.byref(made)))
    try:
        yield made
    finally:
        _checked(_libc.syscall(_DESTROY, made))


def write(context: ctypes.c_ulong, fd: int, buffer: "ctypes.Array[ctypes.c_char]", offset: int) -> int:
    """Submit a write of the whole buffer and wait until it is complete; what it says."""
    request = _Request(
        opcode=_PWRITE, fd=fd, buffer=ctypes.addressof(buffer), size=len(buffer), offset=offset
    )
    pointer = ctypes.pointer(request)
    _checked(_libc.syscall(_SUBMIT, context, ctypes.c_long(1), ctypes.byref(pointer)))
    event = _Event()
    _checked(
        _libc.syscall(_GETEVENTS, context, ctypes.c_long(1), ctypes.c_long(1), ctypes.byref(event), None)
    )
    return int(event.result)
