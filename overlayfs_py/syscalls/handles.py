"""File handles: identifiers of inodes that survive descriptors, renames and remounts."""

import ctypes
import errno
import os
import struct

from overlayfs_py.syscalls._libc import AT_EMPTY_PATH, check, function, last_error

_MAX_HANDLE_SIZE = 128  # MAX_HANDLE_SZ: the kernel refuses a larger buffer
_FIRST_SIZE = 32  # enough for ext4, xfs, btrfs and tmpfs

_header = struct.Struct("=Ii")  # struct file_handle: handle_bytes, handle_type, then f_handle

_name_to_handle_at = function(
    "name_to_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)
_FirstRoom = ctypes.c_char * (_header.size + _FIRST_SIZE)
_first_question = _header.pack(_FIRST_SIZE, 0) + bytes(_FIRST_SIZE)
_unused_mount_id = ctypes.byref(ctypes.c_int())

_open_by_handle_at = function("open_by_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


def encode_handle(dir_fd: int, name: bytes) -> tuple[int, bytes]:
    """Return (type, f_handle) of `name` in `dir_fd`, or of `dir_fd` itself (``O_PATH`` too) for ``b""``.

    A symbolic link is not followed. EOPNOTSUPP: the filesystem has no file handles.
    """
    flags = 0 if name else AT_EMPTY_PATH
    room = _FIRST_SIZE
    buffer: ctypes.Array[ctypes.c_char] = _FirstRoom.from_buffer_copy(_first_question)
    while _name_to_handle_at(dir_fd, name, buffer, _unused_mount_id, flags) < 0:
        error = last_error()
        size, _ = _header.unpack_from(buffer)
        if error.errno != errno.EOVERFLOW or not room < size <= _MAX_HANDLE_SIZE:
            raise error
        room = size
        buffer = ctypes.create_string_buffer(_header.pack(room, 0), _header.size + room)
    answer = buffer.raw
    size, handle_type = _header.unpack_from(answer)
    return handle_type, answer[_header.size : _header.size + size]


def open_handle(mount_fd: int, handle_type: int, handle: bytes, flags: int) -> int:
    """Open the inode of `handle` on the filesystem of `mount_fd` (not an ``O_PATH`` descriptor).

    The caller owns the descriptor, which is close-on-exec. ESTALE: the inode is gone. Needs
    CAP_DAC_READ_SEARCH (EPERM).
    """
    encoded = _header.pack(len(handle), handle_type) + handle
    return check(_open_by_handle_at(mount_fd, encoded, flags | os.O_CLOEXEC))
