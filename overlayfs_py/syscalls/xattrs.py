"""Extended attributes: the names that the kernel gives a meaning, and whether a file has any at all."""

import ctypes

from overlayfs_py.syscalls._libc import AT_SYMLINK_NOFOLLOW, system_call

# <linux/xattr.h>
ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"
ACLS = frozenset((ACL_ACCESS, ACL_DEFAULT))
CAPABILITY = "security.capability"

_listxattrat = system_call(
    465, ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t
)


def has_no_xattrs(dir_fd: int, name: bytes) -> bool:
    """True when entry `name` of `dir_fd` certainly has none; False when it has some, or before Linux 6.13.

    One call without a path through /proc.
    """
    return _listxattrat(dir_fd, name, AT_SYMLINK_NOFOLLOW, None, 0) == 0
