"""What the layers' file systems and our privileges allow, probed once when a stack is opened."""

import errno
import os
import stat
from dataclasses import dataclass

from overlayfs_py.union import marks
from overlayfs_py.union.workdir import WorkDir

_CAP_SYS_ADMIN = 21
_CAP_CHOWN = 0
_EVERYTHING = ["0", "0", "4294967295"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the upper can hold and we may do. All False for a read-only mount."""

    xattrs: bool = False
    trusted_xattrs: bool = False
    whiteout_devices: bool = False
    tmpfile: bool = False
    acls: bool = False
    chown: bool = False


def _effective(capability: int) -> bool:
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
    return False


def may_use_trusted() -> bool:
    """Whether trusted.* xattrs are ours to read and write: CAP_SYS_ADMIN in the first user namespace."""
    with open("/proc/self/uid_map") as f:
        return f.read().split() == _EVERYTHING and _effective(_CAP_SYS_ADMIN)


def probe_upper(work: WorkDir, *, trusted: bool) -> Capabilities:
    """Try each ability on a throw-away file in the work directory; it is gone afterwards."""
    temp = work.new_temp()
    fd, name = temp.at()
    file_fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        trusted_xattrs = trusted and _takes_xattr(file_fd, marks.TRUSTED + "probe")
        xattrs = trusted_xattrs or _takes_xattr(file_fd, marks.USER + "probe")
        acls = _reads_acl(file_fd)
    finally:
        os.close(file_fd)
        work.discard(temp)
    return Capabilities(
        xattrs=xattrs,
        trusted_xattrs=trusted_xattrs,
        whiteout_devices=_makes_whiteouts(work),
        tmpfile=_makes_tmpfiles(work),
        acls=acls,
        chown=_effective(_CAP_CHOWN),
    )


def _takes_xattr(fd: int, name: str) -> bool:
    try:
        os.setxattr(fd, name, b"y")
    except OSError:
        return False
    return True


def _reads_acl(fd: int) -> bool:
    try:
        os.getxattr(fd, "system.posix_acl_access")
    except OSError as e:
        return e.errno == errno.ENODATA
    return True


def _makes_whiteouts(work: WorkDir) -> bool:
    temp = work.new_temp()
    fd, name = temp.at()
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
    except OSError:
        return False
    work.discard(temp)
    return True


def _makes_tmpfiles(work: WorkDir) -> bool:
    try:
        os.close(os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=work.temp.fd))
    except OSError:
        return False
    return True
