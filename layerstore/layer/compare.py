"""Compare entries of two stacks by what a layer records: metadata and content.

Contents are compared byte by byte, not by fingerprints: both sides must be read anyway, the first difference
ends the comparison, and nobody can craft two files that only seem equal (docs/decisions/0010). Holes that
both files have are not read.
"""

from __future__ import annotations

import heapq
import os
from contextlib import ExitStack

from layerstore.layer import whiteout
from overlayfs_py.syscalls.copy import data_extents
from overlayfs_py.union.reading import Marks, Node, Reading, Real, read_xattr

_CHUNK = 1 << 20


def same_place(a: Real, b: Real) -> bool:
    """Return whether both are the same name in the same directory on disk."""
    if a.layer is not b.layer and not os.path.samestat(a.layer.root.stat(), b.layer.root.stat()):
        return False
    return a.layer_path() == b.layer_path()


def same_metadata(new: Reading, a: Real, old: Reading, b: Real) -> bool:
    """Return whether type, mode, owner, device and travelling xattrs are equal; ignores times and size."""
    one, other = a.stat(), b.stat()
    if (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return False
    if one.st_rdev != other.st_rdev:
        return False
    return _visible_xattrs(a, new.marks) == _visible_xattrs(b, old.marks)


def same_content(a: Node, b: Node) -> bool:
    """Return whether two entries of one type have the same link target or the same bytes."""
    if a.is_symlink:
        return a.top.readlink() == b.top.readlink()
    if not a.is_file or same_place(a.data, b.data):
        return True
    with ExitStack() as held:
        one_fd = a.data.open(os.O_RDONLY)
        held.callback(os.close, one_fd)
        other_fd = b.data.open(os.O_RDONLY)
        held.callback(os.close, other_fd)
        return same_bytes(one_fd, other_fd)


def same_bytes(one_fd: int, other_fd: int) -> bool:
    """Return whether two open files hold the same bytes. Moves the offsets of both."""
    size = os.fstat(one_fd).st_size
    if size != os.fstat(other_fd).st_size:
        return False
    at = 0
    for start, end in heapq.merge(data_extents(one_fd, size), data_extents(other_fd, size)):
        at = max(at, start)
        while at < end:
            data = os.pread(one_fd, min(_CHUNK, end - at), at)
            if not data or data != os.pread(other_fd, len(data), at):
                return False  # also when one has become shorter meanwhile
            at += len(data)
    return True


def _visible_xattrs(real: Real, marks: Marks) -> dict[str, bytes]:
    return {shown: read_xattr(real, name) for name, shown in whiteout.xattrs_of_users(real, marks)}
