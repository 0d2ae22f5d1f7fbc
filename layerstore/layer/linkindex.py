"""The index directory of a mount with index=on: lower hard links that were copied up as one file.

After a write to one name of a lower inode with several, all its names show the new content, though only
the written name is in the upper. Each such inode has an entry in ``work/index``, named after the lower
inode's file handle and linked to the upper inode (Documentation/filesystems/overlayfs.rst, "Inode
index").
"""

from __future__ import annotations

import os

from overlayfs_py.syscalls.attrs import filesystem_uuid
from overlayfs_py.syscalls.dirents import DT_REG, read_dirents
from overlayfs_py.syscalls.handles import encode_handle
from overlayfs_py.syscalls.openat import open_beneath
from overlayfs_py.union.marks import Marks
from overlayfs_py.union.origin import NO_UUID, pack

_INDEX = b"index"


class LinkIndex:
    """The entries of one index directory, for an upper of st_dev `home`. Owns `fd`; close it."""

    def __init__(self, work: bytes, marks: Marks, home: int) -> None:
        self.fd = -1
        self._home = home
        self._marks = marks
        # Each with its source: marks go when an upper is taken apart.
        self._entries: dict[bytes, bytes | None] = {}
        self._uuids: dict[int, bytes] = {}
        try:
            self.fd = os.open(os.path.join(work, _INDEX), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        for name, _, kind in read_dirents(self.fd):
            own = kind == DT_REG and self._mark(name, marks.origin) == _origin_in(name)  # ovl_verify_index
            if own and self._has_names_below(name):
                self._entries[name] = self._mark(name, marks.source)

    def __bool__(self) -> bool:
        """Whether any name in a lower layer may stand for an upper file."""
        return bool(self._entries)

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _has_names_below(self, name: bytes) -> bool:
        """Whether the inode has more names than the upper holds: its mark counts all of them.

        ``U-1``: as many as the upper inode has links, less the index entry itself.
        """
        return self._mark(name, self._marks.nlink) != b"U-1"

    def _mark(self, name: bytes, mark: str) -> bytes | None:
        try:
            return os.getxattr(b"/proc/self/fd/%d/%s" % (self.fd, name), mark)
        except OSError:
            return None

    def find(self, root_fd: int, path: bytes, dir_fd: int, name: bytes, st: os.stat_result) -> bytes | None:
        """The entry for the lower inode `name` in `dir_fd`, whose stat is `st`, when it was copied up under
        one of its other names. `path`: where that is in its layer, whose root is `root_fd`.
        """
        if not self._entries:
            return None
        uuid = self._uuid(dir_fd, st.st_dev)
        try:
            origin = pack(uuid, *encode_handle(dir_fd, name))
        except OSError:
            return None  # a file system without handles has no index entries either
        entry = origin.hex().encode() if origin is not None else b""
        if entry not in self._entries:
            return None
        return entry if self._is_of(entry, root_fd, path, uuid, st) else None

    def _is_of(self, entry: bytes, root_fd: int, path: bytes, uuid: bytes, st: os.stat_result) -> bool:
        """As the mount decides it (`overlayfs_py.union.links`): on another file system than the upper's, an
        equal handle may be another file's.
        """
        source = self._entries[entry]
        if st.st_dev == self._home or (source is not None and source.lstrip(b"/") == path):
            return True
        if source is None:
            return uuid != NO_UUID
        try:
            fd = open_beneath(root_fd, source.lstrip(b"/"), os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return os.path.samestat(os.fstat(fd), st)
        finally:
            os.close(fd)

    def _uuid(self, dir_fd: int, dev: int) -> bytes:
        if dev not in self._uuids:
            here = os.fstat(dir_fd).st_dev == dev
            self._uuids[dev] = (filesystem_uuid(dir_fd) if here else None) or NO_UUID
        return self._uuids[dev]


def _origin_in(name: bytes) -> bytes:
    try:
        return bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return b""
