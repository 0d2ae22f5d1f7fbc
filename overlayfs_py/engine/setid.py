"""Who may keep set-user-ID and set-group-ID bits of a file they change.

Where FUSE_HANDLE_KILLPRIV is negotiated (libfuse's versions differ, and pyfuse3 cannot choose) the kernel
leaves the clearing of the bits to the filesystem, as write(2), truncate(2) and setfacl demand of whoever
lacks CAP_FSETID (setattr_should_drop_suidgid). Elsewhere it has cleared them before we look.
"""

import stat

from overlayfs_py.syscalls.privileges import CAP_FSETID, has_capability, status_of


def without_setid(mode: int, *, member: bool = True) -> int:
    """The mode after an ordinary user's write. Set-group-ID without execution is no privilege and stays,
    unless who changes it is neither a `member` of its group nor has CAP_FSETID (setattr_should_drop_sgid,
    Linux 6.2).
    """
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP or not member else mode


def may_keep_setid(uid: int, pid: int) -> bool:
    """Whether the caller has CAP_FSETID. Capabilities of other user namespaces do not count: root's only."""
    if uid != 0:
        return False
    status = _status(pid)
    return b"CapEff" not in status or has_capability(CAP_FSETID, status)


def may_keep_setgid(gid: int, uid: int, caller_gid: int, pid: int) -> bool:
    """Whether the caller may keep set-group-ID on a file of group `gid` whose mode or ACL it changes: it has
    CAP_FSETID or is a member (posix_acl_update_mode, setattr_should_drop_sgid).
    """
    return may_keep_setid(uid, pid) or in_group(gid, caller_gid, pid)


def in_group(gid: int, caller_gid: int, pid: int) -> bool:
    """Whether the caller is a member of the group; `caller_gid` -1: look that up too."""
    if gid == caller_gid:
        return True
    status = _status(pid)
    own = status.get(b"Gid", b"").split()[-1:] if caller_gid < 0 else []  # fsgid
    return b"%d" % gid in own + status.get(b"Groups", b"").split()


def _status(pid: int) -> dict[bytes, bytes]:
    """Return /proc/PID/status; empty when the process is gone or in a PID namespace we cannot see."""
    try:
        return status_of(pid)
    except OSError:
        return {}
