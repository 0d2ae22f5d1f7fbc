"""Write a member's bytes to its file: at their offsets, without holes, and to disk early."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from layerstore.layer.tar.entry import Entry
from overlayfs_py.syscalls.writeback import start_writeback

EAGER = 8 << 20  # bytes after which writeback starts, so that the sync at the end does not wait for all
HOLE = 64 << 10  # a run of this many zeros becomes a hole
_UNIT = HOLE // 2  # compared with zeros at once; every run of `HOLE` zeros contains a whole unit
_ZEROS = bytes(HOLE)

_Placed = Iterator[tuple[int, memoryview]]  # bytes, and where in the file they go


def fill(
    fd: int, entry: Entry, data: Iterator[memoryview], report: Callable[[int], None] | None = None
) -> None:
    """Write the stored data of `entry` into the new file `fd` and set its size.

    Calls `report` with the number of bytes of each piece. `fd` stays the caller's.
    """
    begun = end = 0
    placed = _placed(entry, data, report)
    for offset, piece in placed if entry.size < HOLE else _without_zeros(placed):
        end = offset + len(piece)
        while piece:
            done = os.pwrite(fd, piece, offset)
            piece, offset = piece[done:], offset + done
        if end - begun >= EAGER:
            start_writeback(fd, begun, end - begun)
            begun = end
    if end != entry.size:
        os.ftruncate(fd, entry.size)


def _placed(entry: Entry, data: Iterator[memoryview], report: Callable[[int], None] | None) -> _Placed:
    extents = iter([(0, entry.size)] if entry.extents is None else entry.extents)
    offset = left = 0
    for piece in data:
        if report is not None:
            report(len(piece))
        while piece:
            if not left:
                offset, left = next(extents)
                continue
            part = piece[:left]
            yield offset, part
            offset, left, piece = offset + len(part), left - len(part), piece[len(part) :]


def _without_zeros(placed: _Placed) -> _Placed:
    """Leave out runs of at least `HOLE` zeros, even across pieces; a new file reads as zeros there."""
    zeros = at = 0  # how many zeros before `at` have not been written yet
    for offset, piece in placed:
        if offset != at:
            zeros = 0
        start = here = 0  # bytes before `start` are done, bytes before `here` were compared
        while here < len(piece):
            stop = min(len(piece), here + _UNIT - (offset + here) % _UNIT)
            leading, trailing = _edges(piece[here:stop])
            if here + leading == stop:
                zeros, here = zeros + leading, stop
                continue
            if zeros + leading >= HOLE:
                if here > zeros:
                    yield offset + start, piece[start : here - zeros]
                start = here + leading
            elif zeros > here:
                yield offset + here - zeros, memoryview(_ZEROS)[: zeros - here]
            zeros, here = trailing, stop
        if len(piece) - zeros > start:
            yield offset + start, piece[start : len(piece) - zeros]
        at = offset + len(piece)


def _edges(unit: memoryview) -> tuple[int, int]:
    """Return how many zeros a unit begins and ends with; its length and 0 when it is all zeros."""
    if unit[0] and unit[-1]:  # nearly always
        return 0, 0
    data = bytes(unit)
    if data == _ZEROS[: len(data)]:
        return len(data), 0
    return 0 if unit[0] else _leading(data), 0 if unit[-1] else _leading(data[::-1])


def _leading(data: bytes) -> int:
    """How many zeros these bytes, which are not all zeros, begin with. By halving: strip() takes ten times as
    long.
    """
    count, most = 0, len(data)
    while most - count > 1:
        middle = (count + most) // 2
        if data[count:middle] == _ZEROS[: middle - count]:
            count = middle
        else:
            most = middle
    return count
