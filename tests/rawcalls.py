"""System calls the os module lacks, for the tests alone: never through the code under test."""

import ctypes
import ctypes.util
import errno
import os
import re
import struct
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 1 << 14, 1 << 18
MNT_FORCE, MNT_DETACH = 1, 2
CLONE_NEWNS = 1 << 17
SYS_GETDENTS64 = 217 if os.uname().machine == "x86_64" else 61
SYS_PIDFD_GETFD = 438
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE = 1, 2, 16

_DIRENT = struct.Struct("=QqHB")


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(source: bytes, target: bytes, flags: int = 0) -> None:
    """renameat2(2) on two paths."""
    _check(_libc.renameat2(AT_FDCWD, source, AT_FDCWD, target, flags))


def getdents(dir_fd: int, size: int = 32768) -> list[tuple[bytes, int, int, int]]:
    """One getdents64(2): (name, d_ino, d_type, d_off) of each entry, `.` and `..` included."""
    buffer = ctypes.create_string_buffer(size)
    length = _check(_libc.syscall(SYS_GETDENTS64, dir_fd, buffer, size))
    entries, position, raw = [], 0, buffer.raw
    while position < length:
        inode, offset, record, kind = _DIRENT.unpack_from(raw, position)
        name = raw[position + _DIRENT.size : position + record].split(b"\0", 1)[0]
        entries.append((name, inode, kind, offset))
        position += record
    return entries


def list_dir(dir_fd: int, size: int = 32768) -> list[tuple[bytes, int, int, int]]:
    """Every entry of a directory from its start, `.` and `..` left out."""
    os.lseek(dir_fd, 0, os.SEEK_SET)
    found: list[tuple[bytes, int, int, int]] = []
    while chunk := getdents(dir_fd, size):
        found += [entry for entry in chunk if entry[0] not in (b".", b"..")]
    return found


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with its mode, which os.posix_fallocate hides."""
    _check(_libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def steal_fd(pid: int, fd: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor."""
    pid_fd = os.pidfd_open(pid)
    try:
        return _check(_libc.syscall(SYS_PIDFD_GETFD, pid_fd, fd, 0))
    finally:
        os.close(pid_fd)


def mount(source: bytes, target: bytes, fstype: bytes, flags: int, data: bytes) -> None:
    """mount(2)."""
    try:
        _check(_libc.mount(source, target, fstype, ctypes.c_ulong(flags), data))
    except OSError as error:
        raise OSError(
            error.errno, f"mount {fstype.decode()} {data.decode(errors='replace')}: {error.strerror}"
        ) from None


def umount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, flags))


def remount(target: bytes) -> None:
    """A remount that changes nothing: it drops every unused dentry and inode of that one mount."""
    mount(b"none", target, b"none", MS_REMOUNT, b"")


def is_mounted(path: bytes) -> bool:
    """Whether `path` is a mount point, by the mount table: also true of a dead FUSE mount."""
    wanted = path.replace(b"\\", b"\\134").replace(b" ", b"\\040")
    with open("/proc/self/mountinfo", "rb") as table:
        return any(line.split(b" ")[4] == wanted for line in table)


def mounts() -> list[tuple[bytes, bytes]]:
    """(mount point, file system type) of every mount of this process's table, in their order."""
    with open("/proc/self/mountinfo", "rb") as table:
        lines = [line.split(b" ") for line in table]
    return [(_unescaped(words[4]), words[words.index(b"-") + 1]) for words in lines]


def _unescaped(path: bytes) -> bytes:
    return re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), path)


def unshare_mounts() -> None:
    """unshare(2): a mount table of this process's own; nothing goes from it to others."""
    _check(_libc.unshare(CLONE_NEWNS))
    mount(b"none", b"/", b"none", MS_REC | MS_PRIVATE, b"")


def errno_name(error: OSError) -> str:
    """ENOENT rather than 2: what a report should say."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def outcome(action: Callable[[], object]) -> str:
    """What it ends with: the errno's name, or "done"."""
    try:
        action()
    except OSError as error:
        return errno_name(error)
    return "done"
