"""Whether two entries of stacks are the same, as far as a layer could tell: metadata and content.

Contents are compared byte by byte and not by fingerprints: both sides must be read anyhow, the first
difference ends it, and no two files can be made that only seem equal (docs/decisions/0010). Where both have a
hole nothing is read.
"""

from __future__ import annotations

import heapq
import os
import stat
from contextlib import ExitStack

from layerstore.layer import whiteout
from layerstore.layer.merged import Found, Merged, Part
from overlayfs_py.syscalls.copy import data_extents

_O_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20


def same_place(new: Merged, a: Part, old: Merged, b: Part) -> bool:
    """Whether both are the very same name in the same directory on disk."""
    return new.identity(a) == old.identity(b)


def same_metadata(new: Merged, a: Found, old: Merged, b: Found) -> bool:
    """Type, mode, owner, device and the xattrs that travel in layers; not the times, not the size."""
    one, other = a.st, b.st
    if (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return False
    if one.st_rdev != other.st_rdev:
        return False
    return visible_xattrs(new, a.parts[0]) == visible_xattrs(old, b.parts[0])


def same_content(new: Merged, a: Found, old: Merged, b: Found) -> bool:
    """Of two entries of one type: the same link target or the same bytes."""
    if stat.S_ISLNK(a.st.st_mode):
        return _target(new, a.parts[0]) == _target(old, b.parts[0])
    if a.data is None or b.data is None or same_place(new, a.data, old, b.data):
        return True
    with ExitStack() as held:
        one_fd = _open(new, a.data)
        held.callback(os.close, one_fd)
        other_fd = _open(old, b.data)
        held.callback(os.close, other_fd)
        return same_bytes(one_fd, other_fd)


def same_bytes(one_fd: int, other_fd: int) -> bool:
    """Whether two open files hold the same; the offsets of both are moved."""
    size = os.fstat(one_fd).st_size
    if size != os.fstat(other_fd).st_size:
        return False
    at = 0
    for start, end in heapq.merge(data_extents(one_fd, size), data_extents(other_fd, size)):
        at = max(at, start)
        while at < end:
            data = os.pread(one_fd, min(_CHUNK, end - at), at)
            if not data or data != os.pread(other_fd, len(data), at):
                return False  # or one became shorter just now
            at += len(data)
    return True


def visible_xattrs(merged: Merged, part: Part) -> dict[str, bytes]:
    """What users see: without the overlay's marks."""
    seen = {}
    for name in merged.xattrs(part):
        shown = whiteout.xattr_for_layer(name, merged.marks, lambda _line: None)
        if shown is not None:
            seen[shown] = merged.xattr(part, name)
    return seen


def _target(merged: Merged, part: Part) -> bytes:
    dir_fd, name = merged.at(part)
    return os.readlink(name, dir_fd=dir_fd)


def _open(merged: Merged, part: Part) -> int:
    dir_fd, name = merged.at(part)
    return os.open(name, _O_FILE, dir_fd=dir_fd)
