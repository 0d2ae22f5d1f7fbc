"""One member of a layer tar as a value, and the type flags; `encode` writes it and `decode` reads it."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

BLOCK = 512

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHAR_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

TYPE_OF_MODE = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}

# The mode for mknod(2) of a member that is neither a file, a directory nor a link.
MODE_OF_SPECIAL = {CHAR_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}

Extent = tuple[int, int]  # (offset, length) of data in a sparse file


@dataclass(slots=True)
class Entry:
    """A member with its extended headers applied; names are as in the archive.

    `size` is the size of the file; `extents` lists the data of a sparse one in order. `stored` is the number
    of bytes that follow the headers in the archive, without padding.
    """

    name: bytes
    kind: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    extents: list[Extent] | None = None
    stored: int = 0


def padding(size: int) -> int:
    """Return how many zeros fill up the last block of `size` bytes."""
    return -size % BLOCK
