"""Inode numbers of the union: constant across copy-up and remount, unique under the mount's one st_dev.

A file is identified by its own st_dev and st_ino: one layer may span several file systems (btrfs
subvolumes, mounts, an overlay). Files of the first layer's file system keep their numbers; those of
every other carry its tag in the high bits (the kernel's xino); a number too large for that is hashed. Tags
do not depend on how many there are, so that no number changes when one more is met.
"""

import struct

import xxhash

_PLAIN_BITS, _TAG_SHIFT, _HASHED_BIT = 48, 40, 62
PLAIN_LIMIT = 1 << _PLAIN_BITS
_TAGGED_LIMIT = 1 << _TAG_SHIFT
_FIRST_TAG = 1 << _PLAIN_BITS - _TAG_SHIFT  # so that no tagged number looks like a plain one
_TAGS = 1 << _HASHED_BIT - _TAG_SHIFT
# Those below are the layers', in order; above are those met later.
_FIRST_LATE_TAG = _FIRST_TAG + (1 << 16)
_HASHED = 1 << _HASHED_BIT
_PAIR = struct.Struct("<QQ")


class InodeNumbers:
    """Maps (st_dev, st_ino) to the number that the mount shows. `first`: the st_dev whose numbers are
    kept.
    """

    __slots__ = ("_tags", "_taken", "first")

    def __init__(self, first: int) -> None:
        self.first = first
        self._tags = {first: 0}
        self._taken = {0}

    def add_layer(self, dev: int) -> None:
        """Give the file system of one more layer the next tag, unless it has one."""
        if dev not in self._tags:
            self._take(dev, _FIRST_TAG + len(self._tags))

    def knows(self, dev: int) -> bool:
        """Whether this file system has a tag; else call `meet` first."""
        return dev in self._tags

    def meet(self, dev: int, place: bytes) -> None:
        """Give a file system that no layer begins in a tag made from `place`, the same in every mount."""
        tag = _FIRST_LATE_TAG + xxhash.xxh64_intdigest(place) % (_TAGS - _FIRST_LATE_TAG)
        while tag in self._taken:
            tag = tag + 1 if tag + 1 < _TAGS else _FIRST_LATE_TAG
        self._take(dev, tag)

    def _take(self, dev: int, tag: int) -> None:
        self._tags[dev] = tag
        self._taken.add(tag)

    def number(self, dev: int, ino: int) -> int:
        """The st_ino to show for inode `ino` of the file system `dev`, which is known."""
        if dev == self.first and ino < PLAIN_LIMIT:
            return ino
        tag = self._tags[dev]
        if tag and ino < _TAGGED_LIMIT:
            return ino | tag << _TAG_SHIFT
        return xxhash.xxh64_intdigest(_PAIR.pack(tag, ino)) & (_HASHED - 1) | _HASHED
