"""The bytes of a member into its file: each to its place, holes left out, and on to the disk in good time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from layerstore.layer.entry import Entry
from overlayfs_py.syscalls.writeback import start_writeback

EAGER = 8 << 20  # bytes after which the disk is begun with: a sync at the end would otherwise wait for all


def fill(
    fd: int, entry: Entry, data: Iterator[memoryview], report: Callable[[int], None] | None = None
) -> None:
    """Write what is stored of `entry` into the new file `fd`, and give it its size. `report` is called with
    the number of bytes of each piece.
    """
    begun = end = 0
    for offset, piece in _placed(entry, data):
        size = len(piece)
        end = offset + size
        while piece:
            done = os.pwrite(fd, piece, offset)
            piece, offset = piece[done:], offset + done
        if end - begun >= EAGER:
            start_writeback(fd, begun, end - begun)
            begun = end
        if report is not None:
            report(size)
    if end != entry.size:
        os.ftruncate(fd, entry.size)


def _placed(entry: Entry, data: Iterator[memoryview]) -> Iterator[tuple[int, memoryview]]:
    """The stored bytes and where in the file each piece of them goes."""
    extents = iter([(0, entry.size)] if entry.extents is None else entry.extents)
    offset = left = 0
    for piece in data:
        while piece:
            if not left:
                offset, left = next(extents)
                continue
            part = piece[:left]
            yield offset, part
            offset, left, piece = offset + len(part), left - len(part), piece[len(part) :]
