"""Which callers keep the set-user-ID and set-group-ID bits of a file that they change.

write(2), truncate(2) and setfacl clear the bits for callers without CAP_FSETID (setattr_should_drop_suidgid).
Where FUSE_HANDLE_KILLPRIV is negotiated, the filesystem has to do that (libfuse's versions differ in this,
and pyfuse3 cannot choose); otherwise the kernel has cleared them already.
"""

import stat

from overlayfs_py.syscalls.privileges import CAP_FSETID, has_capability, status_of


def without_setid(mode: int, *, member: bool = True) -> int:
    """Return the mode after a write by a caller without CAP_FSETID.

    Set-group-ID without execute permission is no privilege; it stays if the caller is a `member` of the
    file's group (setattr_should_drop_sgid, Linux 6.2).
    """
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP or not member else mode


def may_keep_setid(uid: int, pid: int) -> bool:
    """Whether the caller is root with CAP_FSETID; capabilities in other user namespaces do not count."""
    if uid != 0:
        return False
    status = _status(pid)
    return b"CapEff" not in status or has_capability(CAP_FSETID, status)


def may_keep_setgid(gid: int, uid: int, caller_gid: int, pid: int) -> bool:
    """Whether set-group-ID stays on a file of group `gid` when the caller changes its mode or ACL: the caller
    has CAP_FSETID or is a member of the group (posix_acl_update_mode, setattr_should_drop_sgid).
    """
    return may_keep_setid(uid, pid) or in_group(gid, caller_gid, pid)


def in_group(gid: int, caller_gid: int, pid: int) -> bool:
    """Whether the caller is a member of the group; `caller_gid` -1: read it from /proc, too."""
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
