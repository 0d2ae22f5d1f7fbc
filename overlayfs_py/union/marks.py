"""The on-disk marks of an overlay: which xattrs and file names mean whiteout, opaque, redirect, metacopy,
origin.

Written are the kernel's own (fs/overlayfs/overlayfs.h, Documentation/filesystems/overlayfs.rst),
under ``trusted.overlay.`` or, for unprivileged mounts, ``user.overlay.``. Read as well, in
lower layers: ``user.overlay.`` whiteouts and opaque marks, AUFS/OCI ``.wh.`` names and
fuse-overlayfs's ``user.fuseoverlayfs.opaque``. Redirects and metacopy are followed only
under this mount's own prefix.

Users may give a file any name and any xattr, so what they make is kept from being taken for a mark by a later
mount (docs/decisions/0025): xattrs are escaped, and a directory that holds names beginning with ``.wh.`` says
by ``overlay.literal`` that they are names.
"""

import errno
import os
import stat
from typing import NamedTuple

from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.attrs import FS_APPEND_FL, FS_IMMUTABLE_FL
from overlayfs_py.syscalls.xattrs import has_no_xattrs
from overlayfs_py.union.layer import Real

TRUSTED = "trusted.overlay."
USER = "user.overlay."
FUSE_OVERLAYFS = "user.fuseoverlayfs."
ESCAPE = "overlay."  # after the prefix: an escaped name, a user's or an overlay's above
LITERAL = (
    "literal"  # after the prefix: AUFS's names are plain names in this directory; before ".": see FOREIGN
)
FOREIGN = USER + LITERAL + "."  # before the whole name: a user's xattr that has the name of a foreign mark
AUFS_WHITEOUT = b".wh."
AUFS_META = b".wh..wh."
AUFS_OPAQUE = b".wh..wh..opq"
OVERRIDES = (
    "user.containers.override_stat",
    "security.fuseoverlayfs.override_stat",
    "user.fuseoverlayfs.override_stat",
)

# What overlayfs writes on directories of an upper and fuse-overlayfs never does: users gave the names there.
_OF_UPPERS = frozenset(
    prefix + word for prefix in (TRUSTED, USER) for word in ("impure", "origin", "redirect", "uuid")
)
_NO_XATTR = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.ELOOP, errno.EINVAL)


def is_internal(name: str) -> bool:
    """Whether the on-disk name is one of the overlay's own marks (escaped ones are users')."""
    for prefix in (TRUSTED, USER):
        if name.startswith(prefix):
            return not (name.startswith(ESCAPE, len(prefix)) or name.startswith(FOREIGN))
    return name.startswith(FUSE_OVERLAYFS) and name not in OVERRIDES


class DirMarks(NamedTuple):
    """A directory's marks in one layer."""

    opaque: bool = False
    xattr_whiteouts: bool = False
    redirect: bytes | None = None
    impure: bool = False
    protection: int = 0


class FileMarks(NamedTuple):
    """A non-directory's marks in one layer."""

    metacopy: bool = False
    redirect: bytes | None = None
    origin: bytes | None = None
    nlink: bytes | None = None
    source: bytes | None = None
    protection: int = 0


# What `overlay.protattr` says, as chattr(1)'s flags (FS_*_FL) and statx(2)'s attributes have it.
IMMUTABLE, APPEND = FS_IMMUTABLE_FL, FS_APPEND_FL


def parse_protection(value: bytes) -> int:
    """The flags in a value of `overlay.protattr`; letters of others are passed over (ovl_check_protattr)."""
    return (IMMUTABLE if b"i" in value else 0) | (APPEND if b"a" in value else 0)


def format_protection(flags: int) -> bytes:
    """`overlay.protattr` for these flags."""
    return (b"a" if flags & APPEND else b"") + (b"i" if flags & IMMUTABLE else b"")


NO_DIR_MARKS = DirMarks()
NO_FILE_MARKS = FileMarks()


def get_xattr(real: Real, name: str) -> bytes | None:
    """The xattr's value; None when it is absent or the file system has none."""
    try:
        return as_owner.getxattr_at(*real.at(), name)
    except OSError as e:
        if e.errno in _NO_XATTR:
            return None
        raise


def read_xattr(real: Real, name: str) -> bytes:
    """The xattr's value; ENODATA, or EINVAL for one that the file system finds damaged."""
    return as_owner.getxattr_at(*real.at(), name)


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
    return as_owner.listxattr_at(*real.at())


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
    as_owner.setxattr_at(*real.at(), name, value, flags)


def remove_xattr(real: Real, name: str) -> None:
    """Remove an xattr; ENODATA when it is absent."""
    as_owner.removexattr_at(*real.at(), name)


def takes_aufs(real: Real) -> bool:
    """Whether names beginning with ``.wh.`` are marks in lower directory `real`, and not names of its own.

    Asked only where there is such a name.
    """
    if real.layer.aufs == "off" or any(get_xattr(real, prefix + LITERAL) for prefix in (TRUSTED, USER)):
        return False
    return real.layer.aufs == "on" or _OF_UPPERS.isdisjoint(list_xattrs(real))


def has_aufs_opaque(real: Real) -> bool:
    """Whether lower directory `real` holds the AUFS/OCI mark that hides what lies below it."""
    return real.layer.aufs != "off" and _has_aufs(real, AUFS_OPAQUE)


def aufs_hides(real: Real, name: bytes) -> bool:
    """Whether lower directory `real` holds the AUFS/OCI whiteout of `name`."""
    return real.layer.aufs != "off" and _has_aufs(real, AUFS_WHITEOUT + name)


def _has_aufs(real: Real, name: bytes) -> bool:
    try:
        st = as_owner.stat_at(real.dir_fd(), name)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return False
        raise
    return stat.S_ISREG(st.st_mode) and takes_aufs(real)


class Marks:
    """The marks under one prefix: names made once, read and written for one mount."""

    __slots__ = (
        "impure",
        "literal",
        "metacopy",
        "nlink",
        "opaque",
        "origin",
        "prefix",
        "protection",
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
        self.protection = prefix + "protattr"
        self.source = prefix + "py.source"  # ours alone: the path in its lower of what a file was copied from
        self.upper = prefix + "upper"
        self.whiteout = prefix + "whiteout"
        self.literal = prefix + LITERAL

    def keep_name(self, directory: Real, name: bytes) -> None:
        """Before the upper's `directory` gets an entry `name`: if AUFS would take it for a mark, say that
        names are names there. This comes first, so no crash leaves the name without it.
        """
        if name.startswith(AUFS_WHITEOUT) and get_xattr(directory, self.literal) is None:
            set_xattr(directory, self.literal, b"y")

    def read_dir(self, real: Real) -> DirMarks:
        """The marks of directory `real`; most have none, which costs one listxattr."""
        names = list_xattrs(real)
        opaque = get_xattr(real, self.opaque) if self.opaque in names else None
        if not real.layer.is_upper and opaque is None:
            opaque = self._foreign_opaque(real, names)
        redirect = get_xattr(real, self.redirect) if self.redirect in names else None
        impure = self.impure in names and get_xattr(real, self.impure) == b"y"
        protection = self._protection(real, names)
        if opaque is None and redirect is None and not (impure or protection):
            return NO_DIR_MARKS
        return DirMarks(opaque == b"y", opaque == b"x", redirect, impure, protection)

    def _protection(self, real: Real, names: list[str]) -> int:
        value = get_xattr(real, self.protection) if self.protection in names else None
        return 0 if value is None else parse_protection(value)

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
            self._protection(real, names),
        )

    def is_xattr_whiteout(self, real: Real) -> bool:
        """Whether `real` (an empty regular file of a directory marked ``x``) is a whiteout; presence
        counts.
        """
        names = list_xattrs(real)
        return self.whiteout in names or (not real.layer.is_upper and USER + "whiteout" in names)
