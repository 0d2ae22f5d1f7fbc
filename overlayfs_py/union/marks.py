"""The on-disk marks of an overlay: which xattrs and file names mean whiteout, opaque, redirect, metacopy,
origin.

Written are the kernel's own (fs/overlayfs/overlayfs.h, Documentation/filesystems/overlayfs.rst),
under ``trusted.overlay.`` or, for unprivileged mounts, ``user.overlay.``. Read as well, in
lower layers: ``user.overlay.`` whiteouts and opaque marks, AUFS/OCI ``.wh.`` names and
fuse-overlayfs's ``user.fuseoverlayfs.opaque``. Redirects and metacopy are followed only
under this mount's own prefix.
"""

import errno
import os
from typing import NamedTuple

from overlayfs_py.syscalls.xattrs import has_no_xattrs
from overlayfs_py.union.layer import Real

TRUSTED = "trusted.overlay."
USER = "user.overlay."
FUSE_OVERLAYFS = "user.fuseoverlayfs."
ESCAPE = "overlay."  # after the prefix: an escaped name, a user's or an overlay's above
AUFS_WHITEOUT = b".wh."
AUFS_META = b".wh..wh."
AUFS_OPAQUE = b".wh..wh..opq"
OVERRIDES = (
    "user.containers.override_stat",
    "security.fuseoverlayfs.override_stat",
    "user.fuseoverlayfs.override_stat",
)

_NO_XATTR = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.ELOOP, errno.EINVAL)


def is_internal(name: str) -> bool:
    """Whether the on-disk name is one of the overlay's own marks (escaped ones are users')."""
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix):
            return not name.startswith(ESCAPE, len(prefix))
    return name.startswith(FUSE_OVERLAYFS)


class DirMarks(NamedTuple):
    """A directory's marks in one layer."""

    opaque: bool = False
    xattr_whiteouts: bool = False
    redirect: bytes | None = None
    impure: bool = False


class FileMarks(NamedTuple):
    """A non-directory's marks in one layer."""

    metacopy: bool = False
    redirect: bytes | None = None
    origin: bytes | None = None
    nlink: bytes | None = None
    source: bytes | None = None


NO_DIR_MARKS = DirMarks()
NO_FILE_MARKS = FileMarks()


def get_xattr(real: Real, name: str) -> bytes | None:
    """The xattr's value; None when it is absent or the file system has none."""
    path, follow = real.proc_path()
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as e:
        if e.errno in _NO_XATTR:
            return None
        raise


def list_xattrs(real: Real) -> list[str]:
    """All xattr names; empty where the file system has none."""
    try:
        return listed_xattrs(real)
    except OSError as e:
        if e.errno in _NO_XATTR:
            return []
        raise


def listed_xattrs(real: Real) -> list[str]:
    """All xattr names; EOPNOTSUPP and the like as the file system says."""
    parent = real.parent
    if parent is not None and has_no_xattrs(parent.dir_fd(), real.name):
        return []
    path, follow = real.proc_path()
    return os.listxattr(path, follow_symlinks=follow)


def list_xattrs_fd(fd: int) -> list[str]:
    """As `list_xattrs`, of an open file (not an ``O_PATH`` descriptor): the quickest way."""
    try:
        return os.listxattr(fd)
    except OSError as e:
        if e.errno in _NO_XATTR:
            return []
        raise


def set_xattr(real: Real, name: str, value: bytes, flags: int = 0) -> None:
    """Set an xattr without following a symlink."""
    path, follow = real.proc_path()
    os.setxattr(path, name, value, flags, follow_symlinks=follow)


def remove_xattr(real: Real, name: str) -> None:
    """Remove an xattr; ENODATA when it is absent."""
    path, follow = real.proc_path()
    os.removexattr(path, name, follow_symlinks=follow)


def has_aufs_opaque(real: Real) -> bool:
    """Whether directory `real` holds the AUFS/OCI mark that hides what lies below it."""
    try:
        os.stat(AUFS_OPAQUE, dir_fd=real.dir_fd(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class Marks:
    """The marks under one prefix: names made once, read and written for one mount."""

    __slots__ = (
        "impure",
        "metacopy",
        "nlink",
        "opaque",
        "origin",
        "prefix",
        "redirect",
        "source",
        "upper",
        "whiteout",
    )

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.opaque = prefix + "opaque"
        self.redirect = prefix + "redirect"
        self.metacopy = prefix + "metacopy"
        self.origin = prefix + "origin"
        self.impure = prefix + "impure"
        self.nlink = prefix + "nlink"
        self.source = prefix + "py.source"  # ours alone: the path in its lower of what a file was copied from
        self.upper = prefix + "upper"
        self.whiteout = prefix + "whiteout"

    def read_dir(self, real: Real) -> DirMarks:
        """The marks of directory `real`; most have none, which costs one listxattr."""
        names = list_xattrs(real)
        opaque = get_xattr(real, self.opaque) if self.opaque in names else None
        if not real.layer.is_upper and opaque is None:
            opaque = self._foreign_opaque(real, names)
        redirect = get_xattr(real, self.redirect) if self.redirect in names else None
        impure = self.impure in names and get_xattr(real, self.impure) == b"y"
        if opaque is None and redirect is None and not impure:
            return NO_DIR_MARKS
        return DirMarks(opaque == b"y", opaque == b"x", redirect, impure)

    def _foreign_opaque(self, real: Real, names: list[str]) -> bytes | None:
        for name in (USER + "opaque", FUSE_OVERLAYFS + "opaque"):
            if name in names:
                return get_xattr(real, name)
        return b"y" if has_aufs_opaque(real) else None

    def read_file(self, real: Real) -> FileMarks:
        """The marks of non-directory `real`."""
        names = list_xattrs(real)
        if not any(n.startswith(self.prefix) for n in names):
            return NO_FILE_MARKS
        return FileMarks(
            self.metacopy in names,
            get_xattr(real, self.redirect) if self.redirect in names else None,
            get_xattr(real, self.origin) if self.origin in names else None,
            get_xattr(real, self.nlink) if self.nlink in names else None,
            get_xattr(real, self.source) if self.source in names else None,
        )

    def is_xattr_whiteout(self, real: Real) -> bool:
        """Whether `real` (an empty regular file of a directory marked ``x``) is a whiteout; presence
        counts.
        """
        names = list_xattrs(real)
        return self.whiteout in names or (not real.layer.is_upper and USER + "whiteout" in names)
