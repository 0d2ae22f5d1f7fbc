"""Bind mounts by descriptors, so that no path is resolved twice."""

import ctypes
import os
import struct

from overlayfs_py.syscalls._libc import AT_EMPTY_PATH, check, system_call

_OPEN_TREE_CLONE = 1
_AT_RECURSIVE = 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOATIME, _MOUNT_ATTR__ATIME = 0x10, 0x70
_MS_PRIVATE = 1 << 18

_mount_attr = struct.Struct("=QQQQ")  # attr_set, attr_clr, propagation, userns_fd
_open_tree = system_call(428, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)
_move_mount = system_call(429, ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)
_mount_setattr = system_call(
    442, ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t
)


def spare_access_times(tree_fd: int) -> None:
    """Make the detached mount `tree_fd` noatime; ENOSYS before Linux 5.12."""
    attributes = _mount_attr.pack(_MOUNT_ATTR_NOATIME, _MOUNT_ATTR__ATIME, 0, 0)
    check(_mount_setattr(tree_fd, b"", AT_EMPTY_PATH, attributes, _mount_attr.size))


def bind_tree(source_fd: int, target_fd: int, *, read_only: bool = False) -> None:
    """Mount the tree of `source_fd`, with all mounts below it, onto `target_fd`.

    Both may be O_PATH descriptors: two directories or two files (ENOTDIR otherwise). The new mounts are
    private: unmounting them does not affect other namespaces. Needs CAP_SYS_ADMIN (EPERM).
    """
    clone = _OPEN_TREE_CLONE | _AT_RECURSIVE | AT_EMPTY_PATH | os.O_CLOEXEC
    tree_fd = check(_open_tree(source_fd, b"", clone))
    try:
        attributes = _mount_attr.pack(_MOUNT_ATTR_RDONLY if read_only else 0, 0, _MS_PRIVATE, 0)
        check(_mount_setattr(tree_fd, b"", AT_EMPTY_PATH | _AT_RECURSIVE, attributes, _mount_attr.size))
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        check(_move_mount(tree_fd, b"", target_fd, b"", flags))
    finally:
        os.close(tree_fd)
