"""The kernel's control files for FUSE connections: abort a connection, even if its daemon hangs."""

import ctypes
import os

from overlayfs_py.syscalls._libc import check, system_call

_USUAL = "/sys/fs/fuse/connections"
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_CMD_CREATE = 6

_fsopen = system_call(430, ctypes.c_char_p, ctypes.c_long)
_fsconfig = system_call(431, ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long)
_fsmount = system_call(432, ctypes.c_long, ctypes.c_long, ctypes.c_long)


def abort_connection(number: int) -> None:
    """Abort the connection: waiting requests get ECONNABORTED, later ones ENOTCONN, the daemon ENODEV.

    ENOENT when there is no such connection, EACCES or EPERM when this process may not abort it. Where fusectl
    is not mounted, root uses a private mount of it.
    """
    if os.path.exists(f"{_USUAL}/{number}") or not _is_root():
        fd = os.open(f"{_USUAL}/{number}/abort", os.O_WRONLY | os.O_CLOEXEC)
    else:
        root_fd = _private_mount()
        try:
            fd = os.open(f"{number}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=root_fd)
        finally:
            os.close(root_fd)
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)


def _is_root() -> bool:
    return os.geteuid() == 0


def _private_mount() -> int:
    context_fd = check(_fsopen(b"fusectl", _FSOPEN_CLOEXEC))
    try:
        check(_fsconfig(context_fd, _FSCONFIG_CMD_CREATE, None, None, 0))
        return check(_fsmount(context_fd, _FSMOUNT_CLOEXEC, 0))
    finally:
        os.close(context_fd)
