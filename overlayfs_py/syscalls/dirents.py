"""Read whole directories with getdents64: names, inode numbers and types at once."""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator

from overlayfs_py.syscalls._libc import function, last_error

DT_UNKNOWN = 0
DT_FIFO = 1
DT_CHR = 2
DT_DIR = 4
DT_BLK = 6
DT_REG = 8
DT_LNK = 10
DT_SOCK = 12

Dirent = tuple[bytes, int, int]

_BUFFER_SIZE = 64 * 1024  # as fast as larger ones, and cheap to allocate
_SMALL_BUFFER_SIZE = 16 * 1024
_NAME_OFFSET = 19

_dirent = struct.Struct("=Q8xHB")  # struct linux_dirent64: d_ino, (d_off), d_reclen, d_type; then d_name
_getdents64 = function("getdents64", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)


def read_dirents(dir_fd: int) -> list[Dirent]:
    """Return (name, d_ino, d_type) of all entries, in the directory's order, without ``.`` and ``..``.

    Reads from the start and moves the offset of `dir_fd`, so two readers at once need two open files. A
    removed directory is empty. A type that the filesystem does not give is looked up; an entry removed
    meanwhile is left out.
    """
    entries: list[Dirent] = []
    for part in _parts(dir_fd, _BUFFER_SIZE):
        entries += part
    return entries


def dirents_in_parts(dir_fd: int) -> Iterator[list[Dirent]]:
    """As `read_dirents`, yielding some hundreds at a time; at least one part, which may be empty."""
    yield from _parts(dir_fd, _SMALL_BUFFER_SIZE)


def _parts(dir_fd: int, buffer_size: int) -> Iterator[list[Dirent]]:
    os.lseek(dir_fd, 0, os.SEEK_SET)
    buffer = ctypes.create_string_buffer(buffer_size)
    size = _fill(dir_fd, buffer)
    while True:
        entries: list[Dirent] = []
        _parse(ctypes.string_at(buffer, size), entries)
        if any(not entry[2] for entry in entries):
            entries = _with_types(dir_fd, entries)
        yield entries
        if not size or not (size := _fill(dir_fd, buffer)):
            return


def _fill(dir_fd: int, buffer: "ctypes.Array[ctypes.c_char]") -> int:
    while (size := _getdents64(dir_fd, buffer, len(buffer))) < 0:
        error = last_error()
        if error.errno == errno.ENOENT:  # removed while open: the end, as readdir(3) has it
            return 0
        if error.errno != errno.EINTR:
            raise error
    return size


def _parse(records: bytes, entries: list[Dirent]) -> None:
    # The hot loop of listing (benchmarks: list 10,000 names, first): 0.7 us an entry, a third of it the
    # kernel's. Slices of bytes beat a memoryview, and splitting a record at its NUL beats searching for it.
    # The kernel does not zero what follows the NUL.
    append = entries.append
    unpack = _dirent.unpack_from
    position = 0
    total = len(records)
    while position < total:
        ino, length, kind = unpack(records, position)
        end = position + length
        name = records[position + _NAME_OFFSET : end].split(b"\0", 1)[0]
        position = end
        if name not in (b".", b".."):
            append((name, ino, kind))


def _with_types(dir_fd: int, entries: list[Dirent]) -> list[Dirent]:
    typed: list[Dirent] = []
    for name, ino, kind in entries:
        if kind == DT_UNKNOWN:
            try:
                mode = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            kind = stat.S_IFMT(mode) >> 12
        typed.append((name, ino, kind))
    return typed
