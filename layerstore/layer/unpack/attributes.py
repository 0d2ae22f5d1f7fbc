"""Set owners, modes, xattrs and times of what is unpacked, by descriptor or without following a symlink.

The order matters: chown clears set-id bits and capabilities, chmod changes an ACL, and everything changes
times. Directories get their attributes at the very end. Until then they are 0700, so that no default ACL,
set-gid bit or missing write permission affects what is made inside, and no other user can look in. Modes that
lock out even the owner come last of all. What is to be set spills from memory into a temporary file, so
memory stays bounded.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from layerstore.errors import InvalidLayer, printable
from layerstore.layer import whiteout
from layerstore.layer.notes import Notes
from layerstore.layer.ownermap import OwnerMap
from layerstore.layer.tar.entry import Entry
from overlayfs_py.syscalls.attrs import set_mode
from overlayfs_py.syscalls.openat import open_beneath
from overlayfs_py.syscalls.xattrs import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from overlayfs_py.union.marks import Marks

_O_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_MEMORY = 1 << 20
_MOST_ID = (1 << 32) - 2
_MOST_SECONDS = 1 << 54
_BILLION = 1_000_000_000
_ACL_VERSION = struct.pack("<I", 2)
_ACL_REFUSALS = (errno.EINVAL, errno.EACCES, errno.EOPNOTSUPP)
# The kernel checks these and refuses a damaged value (EINVAL), the wrong kind of file (EACCES), and an ACL of
# another version (EOPNOTSUPP; for this version that means a file system without ACLs).
_CHECKED = {
    ACL_ACCESS: _ACL_REFUSALS,
    ACL_DEFAULT: _ACL_REFUSALS,
    CAPABILITY: (errno.EINVAL,),
}
_LENGTH = struct.Struct("<I")
_Record = tuple[bytes, int, int, int, int, int, list[tuple[bytes, bytes]]]


class Attributes(NamedTuple):
    """An inode's metadata. `xattrs` are named as on disk."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes]


def first_mode(wanted: Attributes) -> int:
    """Return the mode to create a file with, so that its attributes can be set.

    An ordinary owner needs write permission to set xattrs, and chown would clear set-id bits. No other user
    can reach the file before its directories get their final modes.
    """
    return 0o600 if wanted.xattrs else wanted.mode & 0o777


def check_numbers(entry: Entry) -> None:
    """Raise InvalidLayer for an owner or a time that no system can store."""
    if not (0 <= entry.uid <= _MOST_ID and 0 <= entry.gid <= _MOST_ID):
        raise InvalidLayer(f"an impossible owner {entry.uid}:{entry.gid}", entry.name)
    if abs(entry.mtime_ns) > _MOST_SECONDS * _BILLION:
        raise InvalidLayer("an impossible time", entry.name)


class AttributeSetter:
    """Translates entries' attributes for this machine and sets them. `close` drops what is pending."""

    def __init__(self, marks: Marks, notes: Notes, *, privileged: bool, ids: OwnerMap | None) -> None:
        self._marks = marks
        self._notes = notes
        self._privileged = privileged
        self._ids = ids
        self._pending = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (closed by close)

    def close(self) -> None:
        self._pending.close()

    def of(self, entry: Entry) -> Attributes:
        """Return a checked entry's attributes. Raises InvalidLayer for what this machine cannot store."""
        uid, gid = entry.uid, entry.gid
        if self._ids is not None:
            owner = self._ids.to_disk(uid, gid)
            if owner is None:
                raise InvalidLayer(f"its owner {uid}:{gid} has no id on this machine", entry.name)
            uid, gid = owner
        return Attributes(entry.mode, uid, gid, entry.mtime_ns, self._xattrs(entry) if entry.xattrs else {})

    def _xattrs(self, entry: Entry) -> dict[str, bytes]:
        kept = {}
        for name, value in entry.xattrs.items():
            if "\0" in name or len(os.fsencode(name)) > 255:
                raise InvalidLayer("an xattr with an impossible name", entry.name)
            on_disk = whiteout.xattr_for_disk(name, self._notes.add)
            if on_disk is not None:
                kept[on_disk] = value
        return kept

    def set_file(self, fd: int, wanted: Attributes, path: bytes) -> None:
        """Set all attributes of an open regular file or directory.

        Sets only what differs: a file made with `first_mode` usually needs its time only.
        """
        st = os.fstat(fd)
        is_owned = not self._privileged or (st.st_uid == wanted.uid and st.st_gid == wanted.gid)
        if not is_owned:
            os.fchown(fd, wanted.uid, wanted.gid)
        for name, value in wanted.xattrs.items():
            self._set_xattr(fd, name, value, path)
        if not is_owned or wanted.xattrs or stat.S_IMODE(st.st_mode) != wanted.mode:
            os.fchmod(fd, wanted.mode)
        os.utime(fd, ns=(wanted.mtime_ns, wanted.mtime_ns))

    def set_special(
        self, dir_fd: int, name: bytes, wanted: Attributes, path: bytes, *, symlink: bool
    ) -> None:
        """Set all attributes of what must not be opened: a symlink, a device, a fifo."""
        if self._privileged:
            os.chown(name, wanted.uid, wanted.gid, dir_fd=dir_fd, follow_symlinks=False)
        for key, value in wanted.xattrs.items():
            self._set_xattr(b"/proc/self/fd/%d/%s" % (dir_fd, name), key, value, path)
        if not symlink:
            set_mode(dir_fd, name, wanted.mode)
        os.utime(name, ns=(wanted.mtime_ns, wanted.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _set_xattr(self, where: int | bytes, name: str, value: bytes, path: bytes) -> None:
        if not value and name in _CHECKED:  # the kernel would store it and then refuse to read it
            raise InvalidLayer(f"an empty xattr {name}", path)
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            # Without privilege trusted.* and capabilities cannot be set; user.* never on symlinks and
            # devices.
            if error.errno == errno.EPERM and (not self._privileged or name.startswith("user.")):
                self._notes.add(f"left out the xattr {name} of /{printable(path)}: not permitted")
                return
            if error.errno in _CHECKED.get(name, ()) and not (
                error.errno == errno.EOPNOTSUPP and value.startswith(_ACL_VERSION)
            ):
                raise InvalidLayer(f"an xattr {name} that the kernel refuses", path) from None
            raise OSError(error.errno, f"cannot set the xattr {name}: {error.strerror}", path) from None

    def set_later(self, path: bytes, wanted: Attributes) -> None:
        """Record a directory's attributes for `set_directories`; a later record for the same path wins."""
        mode, uid, gid, mtime_ns, xattrs = wanted
        named = [(os.fsencode(name), value) for name, value in xattrs.items()]  # not always UTF-8
        record = msgspec.msgpack.encode((path, mode, uid, gid, *divmod(mtime_ns, _BILLION), named))
        self._pending.write(_LENGTH.pack(len(record)) + record)

    def set_directories(self, root_fd: int) -> None:
        """Set what was recorded, and skip directories that no longer exist."""
        closed: list[tuple[bytes, int]] = []
        for path, wanted in self._records():
            mode = wanted.mode
            if mode & 0o700 != 0o700 and not self._privileged:
                closed.append((path, mode))  # its owner could not go on below it
                mode |= 0o700
            with _directory(root_fd, path) as fd:
                if fd is not None:
                    self._set_directory(fd, wanted._replace(mode=mode), path)
        for path, mode in reversed(closed):
            with _directory(root_fd, path) as fd:
                if fd is not None:
                    os.fchmod(fd, mode)

    def _records(self) -> Iterator[tuple[bytes, Attributes]]:
        self._pending.seek(0)
        decode = msgspec.msgpack.Decoder(_Record).decode
        while head := self._pending.read(_LENGTH.size):
            record = decode(self._pending.read(_LENGTH.unpack(head)[0]))
            path, mode, uid, gid, seconds, ns, named = record
            xattrs = {os.fsdecode(name): value for name, value in named}
            yield path, Attributes(mode, uid, gid, seconds * _BILLION + ns, xattrs)

    def _set_directory(self, fd: int, wanted: Attributes, path: bytes) -> None:
        for name in os.listxattr(fd):  # from an earlier entry for the same directory, or inherited
            if (
                name not in wanted.xattrs
                and name != self._marks.opaque
                and not name.startswith("security.selinux")
            ):
                os.removexattr(fd, name)
        self.set_file(fd, wanted, path)


@contextmanager
def _directory(root_fd: int, path: bytes) -> Iterator[int | None]:
    """Yield a descriptor of the directory, closed at the end; None when a later member replaced it."""
    try:
        fd = open_beneath(root_fd, path or b".", _O_DIR)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
