"""Times, modes, space, flags and file systems of files, without following symbolic links."""

import ctypes
import errno
import fcntl
import os
import stat
import struct

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import btrfs
from overlayfs_py.syscalls._libc import (
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    check,
    function,
    last_error,
    system_call,
)

# Inode flags of chattr(1), and the ioctl(2) commands for them.
FS_IMMUTABLE_FL, FS_APPEND_FL = 0x10, 0x20
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820

# Errnos that mean: this file system does not support the ioctl(2) command.
NO_IOCTL = (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_COLLAPSE_RANGE = 0x08

_UTIME_OMIT = (1 << 30) - 2
_BILLION = 1_000_000_000
_STATFS_SIZE = 256  # larger than struct statfs on every architecture
_FS_IOC_GETFSUUID = 2 << 30 | 17 << 16 | 0x15 << 8  # _IOR(0x15, 0, struct { u8 len; u8 uuid[16]; })

_timespecs = struct.Struct("=qqqq")
_uuid = struct.Struct("=B16s")
_flags = struct.Struct("=I")

_utimensat = function("utimensat", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fallocate = function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = function("syncfs", ctypes.c_int)
_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)
_fchmodat2 = system_call(452, ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_long)


def set_times(dir_fd: int, name: bytes, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set the access and modification time (ns since 1970, also negative); None leaves one unchanged.

    ``b""`` means `dir_fd` itself, which may be any kind of file and an ``O_PATH`` descriptor.
    """
    if name and atime_ns is not None and mtime_ns is not None:  # os.utime is twice as fast
        os.utime(name, ns=(atime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
        return
    atime_s, atime_part = (0, _UTIME_OMIT) if atime_ns is None else divmod(atime_ns, _BILLION)
    mtime_s, mtime_part = (0, _UTIME_OMIT) if mtime_ns is None else divmod(mtime_ns, _BILLION)
    times = _timespecs.pack(atime_s, atime_part, mtime_s, mtime_part)
    flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    if _utimensat(dir_fd, name, times, flags) < 0:
        raise last_error()


def touch(dir_fd: int, name: bytes) -> None:
    """Set both times to now, which is allowed for append-only files too; `name` as for `set_times`."""
    if _utimensat(dir_fd, name, None, AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH) < 0:
        raise last_error()


def set_mode(dir_fd: int, name: bytes, mode: int) -> None:
    """Set the permission bits of `name`, or of `dir_fd` itself (``O_PATH`` too) for ``b""``.

    A symbolic link is not followed and has no mode of its own: EOPNOTSUPP.
    """
    flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    if _fchmodat2(dir_fd, name, stat.S_IMODE(mode), flags) == 0:
        return
    error = last_error()
    # ENOSYS: Linux before 6.6. EPERM: perhaps an older seccomp filter that does not know the call.
    if error.errno not in (errno.ENOSYS, errno.EPERM):
        raise error
    _set_mode_by_proc(dir_fd, name, mode)


def _set_mode_by_proc(dir_fd: int, name: bytes, mode: int) -> None:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=dir_fd) if name else os.dup(dir_fd)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            fail(errno.EOPNOTSUPP)
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
    finally:
        os.close(fd)


def unprotect(fd: int) -> bool:
    """Remove chattr(1)'s immutable and append-only flags from the file or directory of `fd` (not ``O_PATH``).

    Returns whether it had one; False also when there are no flags or this process may not change them.
    """
    try:
        found = _flags.unpack(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(_flags.size)))[0]
        left = found & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)
        if left == found:
            return False
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, _flags.pack(left))
    except OSError:
        return False
    return True


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2); EOPNOTSUPP when the filesystem does not support `mode`."""
    while _fallocate(fd, mode, offset, length) < 0:
        error = last_error()
        if error.errno != errno.EINTR:
            raise error


def syncfs(fd: int) -> None:
    """Write the whole filesystem of `fd` to its storage; `fd` may be a directory, but not ``O_PATH``."""
    check(_syncfs(fd))


def filesystem_uuid(fd: int) -> bytes | None:
    """Return the UUID of the filesystem of `fd` (not ``O_PATH``); None when it has none, or only zeros."""
    buffer = bytearray(_uuid.size)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, buffer)
    except OSError as error:
        if error.errno not in NO_IOCTL:
            raise
        try:
            return btrfs.filesystem_uuid(fd)
        except OSError:
            return None
    length, uuid = _uuid.unpack(buffer)
    return bytes(uuid[:length]) if any(uuid) else None


def filesystem_type(fd: int) -> int:
    """Return statfs(2)'s f_type of the file system of `fd`, which may be ``O_PATH``."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    check(_fstatfs(fd, buffer))
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF
