"""Inode numbers of the union: constant across copy-up and remount, unique under the mount's one st_dev.

Layers on one file system keep its numbers. With several, numbers of the second and
further file systems carry the file system's index in their high bits (the kernel's
xino); a number too large for that is hashed.
"""

import struct

import xxhash

_HASHED = 1 << 62
_PAIR = struct.Struct("<QQ")


class InodeNumbers:
    """Maps (fsid, st_ino) to the number the mount shows. `filesystems`: how many the stack has."""

    __slots__ = ("_limit", "_shift", "single")

    def __init__(self, filesystems: int) -> None:
        self.single = filesystems == 1
        self._shift = 62 - max(1, (filesystems - 1).bit_length())
        self._limit = 1 << self._shift

    def number(self, fsid: int, ino: int) -> int:
        """The st_ino to show for inode `ino` of file system `fsid`."""
        if self.single:
            return ino
        if ino < self._limit:
            return ino | fsid << self._shift
        return xxhash.xxh64_intdigest(_PAIR.pack(fsid, ino)) & (_HASHED - 1) | _HASHED
