"""What the layers' file systems and our privileges allow, probed once when a stack is opened.

Each ability is tried, not derived from the name of a file system: what a kernel's file system can do depends
on its version, its mount options and the user namespace. Trying leaves nothing: temporary inodes in the work
directory, which go at once, or by the next mount if a crash comes between.
"""

import errno
import os
import stat
from dataclasses import dataclass

from overlayfs_py.syscalls.privileges import CAP_CHOWN, has_capability
from overlayfs_py.syscalls.rename import RENAME_EXCHANGE, RENAME_WHITEOUT, renameat2
from overlayfs_py.syscalls.xattrs import ACL_ACCESS
from overlayfs_py.union import marks
from overlayfs_py.union.layer import is_whiteout_device
from overlayfs_py.union.workdir import WorkDir


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the upper can hold and we may do. All False for a read-only mount.

    `exchange` and `rename_whiteout`: flags of renameat2.
    """

    xattrs: bool = False
    trusted_xattrs: bool = False
    whiteout_devices: bool = False
    tmpfile: bool = False
    acls: bool = False
    chown: bool = False
    exchange: bool = False
    rename_whiteout: bool = False


def probe_upper(work: WorkDir, *, trusted: bool) -> Capabilities:
    """Return what the upper's file system allows; raises OSError only where no file can be made at all."""
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
        chown=has_capability(CAP_CHOWN),
        exchange=_renames(work, RENAME_EXCHANGE),
        rename_whiteout=_renames(work, RENAME_WHITEOUT),
    )


def _takes_xattr(fd: int, name: str) -> bool:
    """Whether an xattr can be set; refused by the file system (EOPNOTSUPP) or for want of privileges
    (EPERM).
    """
    try:
        os.setxattr(fd, name, b"y")
    except OSError:
        return False
    return True


def _reads_acl(fd: int) -> bool:
    """Whether files have ACLs here: ENODATA means that this one merely has none."""
    try:
        os.getxattr(fd, ACL_ACCESS)
    except OSError as e:
        return e.errno == errno.ENODATA
    return True


def _makes_whiteouts(work: WorkDir) -> bool:
    """Whether 0:0 character devices can be made. Since Linux 5.8 that needs no privilege, but some file
    systems and user namespaces refuse it; whiteouts are files with an xattr then.
    """
    temp = work.new_temp()
    fd, name = temp.at()
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
    except OSError:
        return False
    work.discard(temp)
    return True


def _renames(work: WorkDir, flag: int) -> bool:
    """Whether renameat2 takes `flag` and does as it says: the old name is still there afterwards. (One that
    ignored it would have moved the name.) Tried with inodes that take no block, so that a full disk does not
    look like a file system without the ability.
    """
    old, new = work.new_temp(), work.new_temp()
    fd, old_name = old.at()
    try:
        os.symlink(b"old", old_name, dir_fd=fd)
        if flag == RENAME_EXCHANGE:
            os.close(os.open(new.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
        renameat2(fd, old_name, fd, new.name, flag)
        left = old.stat()
    except OSError:
        return False
    finally:
        work.discard(old)
        work.discard(new)
    return stat.S_ISREG(left.st_mode) if flag == RENAME_EXCHANGE else is_whiteout_device(left)


def silly_rename_prefix(work: WorkDir) -> bytes:
    """Return how the names begin under which the file system keeps files that are removed while they are
    open, as FUSE and NFS do ("silly rename"); empty where it needs none. Listings leave such names out.
    """
    fd, name = work.new_temp().at()
    open_fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        before = set(_names(fd)) - {name}
        os.unlink(name, dir_fd=fd)
        left = b"".join(set(_names(fd)) - before)
    finally:
        os.close(open_fd)
    return left.rstrip(b"0123456789abcdef")


def _names(dir_fd: int) -> list[bytes]:
    """List a directory by an O_PATH descriptor of it."""
    return os.listdir(b"/proc/self/fd/%d" % dir_fd)


def _makes_tmpfiles(work: WorkDir) -> bool:
    try:
        os.close(os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=work.temp.fd))
    except OSError:
        return False
    return True
