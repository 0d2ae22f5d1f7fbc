"""Attributes as a caller sees them: stat results with the union's inode number, mapped owners and modes.

Owner mapping works as fuse-overlayfs's: `inside` ids are seen through the mount,
`outside` ids stand in the layers.
"""

import functools
import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from overlayfs_py.options import IdRange

OVERFLOW_ID = 65534


class Attr(NamedTuple):
    """Attributes as GETATTR returns them; times in nanoseconds, `blocks` in 512-byte units."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


NOW = 1 << 80  # a time, in nanoseconds, that no time is


class AttrChanges(NamedTuple):
    """Changes as SETATTR requests them; None leaves a field alone. `mode` holds permission bits only. A time
    may be NOW: the time of the change, taken from the file system's own clock.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class Caller(NamedTuple):
    """The caller of an operation: the ids that own what it creates, and the umask, which a default ACL
    replaces.
    """

    uid: int = 0
    gid: int = 0
    umask: int = 0


class IdMap:
    """Maps one kind of id (user or group) between the layers and the mount."""

    __slots__ = ("_ranges", "_squash", "trivial")

    def __init__(self, ranges: Sequence[IdRange], squash: int | None) -> None:
        self._ranges = tuple(ranges)
        self._squash = squash
        self.trivial = not self._ranges and squash is None

    def to_mount(self, layer_id: int) -> int:
        """The id to show for an id found in a layer; ids without a mapping show as 65534."""
        if self.trivial:
            return layer_id
        if self._squash is not None:
            return self._squash
        for r in self._ranges:
            if r.in_layer <= layer_id < r.in_layer + r.size:
                return r.in_mount + layer_id - r.in_layer
        return OVERFLOW_ID

    def to_layer(self, mount_id: int) -> int:
        """The id to store in the upper; raises KeyError for an id without a mapping."""
        if not self._ranges:
            return mount_id
        for r in self._ranges:
            if r.in_mount <= mount_id < r.in_mount + r.size:
                return r.in_layer + mount_id - r.in_mount
        raise KeyError(mount_id)


def mode_override(value: bytes) -> tuple[int, int, int] | None:
    """Parse an override_stat xattr ``uid:gid:0mode[:type]`` (containers/storage); None when malformed."""
    fields = value.split(b":")
    try:
        return int(fields[0]), int(fields[1]), int(fields[2], 8) & 0o7777
    except (IndexError, ValueError):
        return None


def format_override(uid: int, gid: int, mode: int) -> bytes:
    """The override_stat xattr for these values."""
    return b"%d:%d:0%o" % (uid, gid, stat.S_IMODE(mode))


# A named tuple's own constructor is Python; this one is not (bench: stat, first).
_attr: Callable[[tuple[int, ...]], Attr] = functools.partial(tuple.__new__, Attr)


def d_type(mode: int) -> int:
    """The DT_* value of a file mode."""
    return stat.S_IFMT(mode) >> 12


def make_attr(st: os.stat_result, ino: int, nlink: int) -> Attr:
    """An Attr from a real inode's stat with the union's number and link count."""
    return _attr(
        (
            ino,
            st.st_mode,
            nlink,
            st.st_uid,
            st.st_gid,
            st.st_rdev,
            st.st_size,
            st.st_blocks,
            st.st_blksize,
            st.st_atime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
        )
    )
