"""Write sparse files: which holes of a file go into a map, and the map as bytes (PAX format 1.0)."""

from __future__ import annotations

import os

from layerstore.layer.tar.entry import Extent, padding
from overlayfs_py.syscalls.copy import data_extents

_SMALLEST_HOLE = 64 << 10
_MOST_EXTENTS = 8192
_PAGE = 4096


def may_be_sparse(st: os.stat_result) -> bool:
    """Return whether the file occupies so much less than its size that it has a hole worth keeping."""
    return st.st_size - 512 * st.st_blocks >= _SMALLEST_HOLE


def find_extents(fd: int, size: int) -> list[Extent] | None:
    """Return a file's data as (offset, length) in order, if it has holes of 64 KiB or more; else None.

    Smaller holes count as data, and in a file of very many holes larger ones too, which keeps the map small.
    Extents begin and end at whole pages, so that file systems with other block sizes give the same map.
    """
    smallest = _SMALLEST_HOLE
    while True:
        extents = _extents(fd, size, smallest)
        if extents is not None:
            return None if extents == [(0, size)] else extents
        smallest *= 8


def _extents(fd: int, size: int, smallest: int) -> list[Extent] | None:
    extents: list[Extent] = []
    for start, stop in data_extents(fd, size):
        start -= start % _PAGE
        stop = min(size, stop + -stop % _PAGE)
        last = sum(extents[-1]) if extents else 0
        if start - last < smallest:
            start = extents.pop()[0] if extents else 0
        elif len(extents) >= _MOST_EXTENTS:
            return None
        extents.append((start, stop - start))
    last = sum(extents[-1]) if extents else 0
    if 0 < size - last < smallest:
        start = extents.pop()[0] if extents else 0
        extents.append((start, size - start))
    return extents


def encode_map(extents: list[Extent], size: int) -> bytes:
    """Return the map that precedes the data, in whole blocks, with an empty extent at the file's end."""
    pairs = extents if extents and sum(extents[-1]) == size else [*extents, (size, 0)]
    text = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    return text + bytes(padding(len(text)))
