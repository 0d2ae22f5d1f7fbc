"""What only statx(2) provides: birth time, attributes, and the device number without a request."""

import ctypes
import os
from struct import Struct

from overlayfs_py.syscalls._libc import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, check, function

_STATX_BTIME = 0x800
_SIZE = 256
_MASK = Struct("=I")
_BTIME = Struct("=qI")
_BTIME_AT = 80  # stx_btime in struct statx
_ATTRIBUTES = Struct("=Q")
_ATTRIBUTES_AT = 8  # stx_attributes
_DEVICE = Struct("=II")
_DEVICE_AT = 136  # stx_dev_major, stx_dev_minor
_AT_STATX_DONT_SYNC = 0x4000

_statx = function("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


def birth_time_ns(dir_fd: int, name: bytes) -> int | None:
    """Return the birth time of `name` in `dir_fd` (b"": of the descriptor itself); no link is followed.

    None when the file system has none.
    """
    found = ctypes.create_string_buffer(_SIZE)
    flags = AT_SYMLINK_NOFOLLOW | (0 if name else AT_EMPTY_PATH)
    check(_statx(dir_fd, os.fsencode(name), flags, _STATX_BTIME, found))
    if not _MASK.unpack_from(found)[0] & _STATX_BTIME:
        return None
    seconds, nanoseconds = _BTIME.unpack_from(found, _BTIME_AT)
    return int(seconds * 1_000_000_000 + nanoseconds)


def attributes(dir_fd: int, name: bytes) -> int:
    """Return STATX_ATTR_* of `name` in `dir_fd` (b"": of the descriptor itself); no link is followed."""
    found = ctypes.create_string_buffer(_SIZE)
    check(_statx(dir_fd, name, AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH, 0, found))
    return int(_ATTRIBUTES.unpack_from(found, _ATTRIBUTES_AT)[0])


def device_without_request(path: str) -> int | None:
    """Return st_dev of the target of a /proc link, without a request to its file system; None: no target."""
    found = ctypes.create_string_buffer(_SIZE)
    if _statx(AT_FDCWD, path.encode(), _AT_STATX_DONT_SYNC, 0, found) < 0:
        return None
    return os.makedev(*_DEVICE.unpack_from(found, _DEVICE_AT))
