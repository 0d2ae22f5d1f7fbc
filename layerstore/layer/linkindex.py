"""The index directory of a mount with index=on: lower hard links that were copied up as one file.

After a write to one name of a lower inode with several, all its names show the new content, though only
the written name is in the upper. Each such inode has an entry in ``work/index``, named after the lower
inode's file handle and linked to the upper inode (Documentation/filesystems/overlayfs.rst, "Inode
index").
"""

from __future__ import annotations

import os

from overlayfs_py.syscalls.dirents import DT_REG, read_dirents
from overlayfs_py.syscalls.handles import encode_handle
from overlayfs_py.union.marks import Marks

# struct ovl_fb: version, magic, len, flags, type, uuid[16], then the handle.
_TYPE_AT, _HANDLE_AT = 4, 21
_INDEX = b"index"


class LinkIndex:
    """The entries of one index directory. Owns `fd`; close it."""

    def __init__(self, work: bytes, marks: Marks) -> None:
        self.fd = -1
        self._entries: dict[tuple[int, bytes], bytes] = {}
        try:
            self.fd = os.open(os.path.join(work, _INDEX), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        for name, _, kind in read_dirents(self.fd):
            key = _handle_in(name) if kind == DT_REG else None
            if key is not None and self._has_names_below(name, marks):
                self._entries[key] = name

    def __bool__(self) -> bool:
        """Whether any name in a lower layer may stand for an upper file."""
        return bool(self._entries)

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _has_names_below(self, name: bytes, marks: Marks) -> bool:
        """Whether the inode has more names than the upper holds: its mark counts all of them.

        ``U-1``: as many as the upper inode has links, less the index entry itself.
        """
        try:
            return os.getxattr(b"/proc/self/fd/%d/%s" % (self.fd, name), marks.nlink) != b"U-1"
        except OSError:
            return True

    def find(self, dir_fd: int, name: bytes) -> bytes | None:
        """The entry for the lower inode `name`, when it was copied up under one of its other names."""
        if not self._entries:
            return None
        try:
            return self._entries.get(encode_handle(dir_fd, name))
        except OSError:
            return None  # a file system without handles has no index entries either


def _handle_in(name: bytes) -> tuple[int, bytes] | None:
    try:
        origin = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return None
    return (origin[_TYPE_AT], origin[_HANDLE_AT:]) if len(origin) > _HANDLE_AT else None
