"""Write single entries of a tree to a layer: metadata, xattrs, contents, hard links.

Knows files and tar members, not their order. Opens every file by name in an open directory, without following
a symlink, and reads all its metadata from that descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from layerstore.errors import LimitExceeded, Unrepresentable, printable
from layerstore.layer import whiteout
from layerstore.layer.notes import Notes
from layerstore.layer.ownermap import OwnerMap
from layerstore.layer.tar import sparse
from layerstore.layer.tar.encode import encode, encode_file
from layerstore.layer.tar.entry import DIRECTORY, HARD_LINK, REGULAR, TYPE_OF_MODE, Entry, padding
from layerstore.layer.write.pipeline import BlockWriter, Truncated, Unreadable
from layerstore.layer.write.walk import FindData
from layerstore.limits import DEFAULT_LIMITS, Limits
from overlayfs_py.syscalls.as_owner import getxattr_at
from overlayfs_py.syscalls.copy import data_extents
from overlayfs_py.syscalls.dirents import DT_REG
from overlayfs_py.union.reading import Reading, Real, list_xattrs, read_xattr

_MOST_PATH = 4095
_BILLION = 1_000_000_000


class _Links:
    """Records which inodes are in the layer, and under which path, until all their names are written.

    With an index (`forever`) the link count does not say how many names there are.
    """

    def __init__(self, *, forever: bool) -> None:
        self._forever = forever
        self._first: dict[tuple[int, int], tuple[bytes, int]] = {}

    def first(self, path: bytes, st: os.stat_result) -> bytes | None:
        """Return the path under which this inode was written; None: it was not, and `path` is recorded."""
        key = (st.st_dev, st.st_ino)
        known = self._first.get(key)
        if known is None:
            self._first[key] = (path, st.st_nlink - 1)
            return None
        first, left = known
        if left <= 1 and not self._forever:
            del self._first[key]
        else:
            self._first[key] = (first, left - 1)
        return first


class MemberWriter:
    """Writes entries to `sink`; `clamp` (seconds) bounds their times, `ids` translates their owners.

    `sparse`: large holes become a map of the data instead of zeros. Raises LimitExceeded instead of writing
    what `limits` would refuse to unpack.
    """

    def __init__(
        self,
        reading: Reading,
        sink: BlockWriter,
        notes: Notes,
        *,
        clamp: int | None = None,
        sparse: bool = False,
        ids: OwnerMap | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.count = 0
        self._marks = reading.marks
        self._sink = sink
        self._notes = notes
        self._clamp_ns = None if clamp is None else clamp * _BILLION
        self._sparse = sparse
        self._ids = ids
        self._limits = limits
        self._links = _Links(forever=reading.has_linked_names)
        # Cleared when O_NOATIME is refused once: only a file's owner and root may use it.
        self._noatime = os.O_NOATIME

    def directory(self, path: bytes, real: Real) -> None:
        """Write a directory's own entry; the root is ``./``."""
        st = real.stat()
        entry = self._entry(path + b"/" if path else b"./", DIRECTORY, st)
        entry.xattrs = self._xattrs(path, real)
        self._put(entry, path)

    def whiteout(self, directory: bytes, name: bytes) -> None:
        self._marker(directory, whiteout.whiteout_name(name))

    def opaque_marker(self, directory: bytes) -> None:
        self._marker(directory, whiteout.OPAQUE_MARKER)

    def _marker(self, directory: bytes, name: bytes) -> None:
        # Owner, mode and time of the whiteout on disk mean nothing and are not written.
        path = directory + b"/" + name if directory else name
        self._put(Entry(path, mode=0), path)

    def other(self, path: bytes, real: Real, kind: int, find_data: FindData) -> bool:
        """Write anything but a directory, listed as `kind`; returns False when a whiteout has replaced it.

        What has been removed meanwhile is left out with a note.
        """
        try:
            if kind == DT_REG and self._file(path, real, find_data):
                return True
            st = real.stat()
            if whiteout.is_whiteout_device(st):
                return False
            if stat.S_ISDIR(st.st_mode) or stat.S_ISREG(st.st_mode):
                raise Unrepresentable(path, "it was replaced while it was read (pause its writers)")
            if stat.S_ISSOCK(st.st_mode):
                self._notes.add(f"left out the socket /{printable(path)}")
            else:
                self._special(path, real, st)
        except FileNotFoundError:
            self.gone(path)
        except PermissionError as error:
            raise Unrepresentable(path, f"it cannot be read: {error.strerror}") from None
        return True

    def gone(self, path: bytes) -> None:
        """Note that something was removed after it was listed."""
        self._notes.add(f"left out /{printable(path)}: it was removed while the layer was written")

    def _special(self, path: bytes, real: Real, st: os.stat_result) -> None:
        if self._linked(path, st):
            return
        entry = self._entry(path, TYPE_OF_MODE[stat.S_IFMT(st.st_mode)], st)
        entry.xattrs = self._xattrs(path, real)
        if stat.S_ISLNK(st.st_mode):
            entry.linkname = real.readlink()
            entry.mode = 0o777
        elif not stat.S_ISFIFO(st.st_mode):
            entry.device = (os.major(st.st_rdev), os.minor(st.st_rdev))
        self._put(entry, path)

    def _file(self, path: bytes, real: Real, find_data: FindData) -> bool:
        """Write a regular file; returns False when it is none any more."""
        try:
            fd = self._open(real)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):  # a symlink, a socket, a whiteout
                return False
            raise
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                return False
            if st.st_nlink < 2 or not self._linked(path, st):
                self._new_file(path, real, fd, st, find_data)
            return True
        except Truncated:
            raise Unrepresentable(path, "it became shorter while it was read (pause its writers)") from None
        except Unreadable as e:
            raise Unrepresentable(path, f"it cannot be read: {e}") from e
        finally:
            os.close(fd)

    def _new_file(self, path: bytes, real: Real, fd: int, st: os.stat_result, find_data: FindData) -> None:
        names = _list_xattrs(fd)
        if not names and not sparse.may_be_sparse(st):
            return self._put_plain_file(path, fd, st)
        entry = self._entry(path, REGULAR, st)
        if not names:
            return self._put_file(entry, path, fd, st)
        entry.xattrs = self._kept_xattrs(path, names, lambda name: getxattr_at(fd, b"", name))
        if self._marks.metacopy not in names:
            return self._put_file(entry, path, fd, st)
        data = find_data()
        if data is None or data.layer is real.layer:
            raise Unrepresentable(path, "it was replaced while it was read (pause its writers)")
        data_fd = self._open(data)
        try:
            self._put_file(entry, path, data_fd, os.fstat(data_fd))
        finally:
            os.close(data_fd)

    def _open(self, real: Real) -> int:
        try:
            return real.open(os.O_RDONLY | self._noatime)
        except PermissionError:
            if not self._noatime:
                raise
            self._noatime = 0
            return real.open(os.O_RDONLY)

    def _put_plain_file(self, path: bytes, fd: int, st: os.stat_result) -> None:
        """Write a file without xattrs and holes: nearly every file, and the hot path of a commit."""
        uid, gid = (st.st_uid, st.st_gid) if self._ids is None else self._owner(path, st)
        mtime_ns = st.st_mtime_ns if self._clamp_ns is None else self._mtime(st)
        self._add(path)
        header = encode_file(path, st.st_mode, uid, gid, st.st_size, mtime_ns)
        self._sink.member(header, fd, st.st_size)

    def _put_file(self, entry: Entry, path: bytes, fd: int, st: os.stat_result) -> None:
        entry.size = entry.stored = st.st_size
        if not sparse.may_be_sparse(st):
            self._add(path)
            self._sink.member(encode(entry), fd, entry.size)
            return
        extents = sparse.find_extents(fd, st.st_size) if self._sparse else None
        if extents is None:
            self._put_in_full(entry, path, fd)
        else:
            self._put_sparse(entry, path, fd, extents)

    def _put_in_full(self, entry: Entry, path: bytes, fd: int) -> None:
        """Write every byte of a file with holes, reading only its data."""
        if self._sink.size + entry.size > self._limits.max_bytes:
            what = f"/{printable(path)} and its holes, {entry.size} bytes in full, make the layer too large"
            raise LimitExceeded(f"{what}: --sparse leaves the holes out", "bytes")
        self._put(entry, path)
        at = 0
        for start, end in data_extents(fd, entry.size):
            self._sink.zeros(start - at)
            self._sink.copy(fd, start, end - start)
            at = end
        if os.fstat(fd).st_size < entry.size:
            raise Truncated
        self._sink.zeros(entry.size - at + padding(entry.size))

    def _put_sparse(self, entry: Entry, path: bytes, fd: int, extents: list[tuple[int, int]]) -> None:
        if entry.size > self._limits.max_file_size:
            what = f"/{printable(path)} has {entry.size} bytes, which is refused when the layer is unpacked"
            raise LimitExceeded(what, "file-size")
        sparse_map = sparse.encode_map(extents, entry.size)
        entry.extents = extents
        entry.stored = len(sparse_map) + sum(length for _, length in extents)
        self._put(entry, path)
        self._sink.write(sparse_map)
        for offset, length in extents:
            self._sink.copy(fd, offset, length)
        self._sink.zeros(padding(entry.stored))

    def _linked(self, path: bytes, st: os.stat_result) -> bool:
        """Write a hard link if the inode is in the layer already; returns whether it was."""
        if st.st_nlink < 2:
            return False
        first = self._links.first(path, st)
        if first is None:
            return False
        uid, gid = self._owner(path, st)
        entry = Entry(
            path, HARD_LINK, stat.S_IMODE(st.st_mode), uid, gid, mtime_ns=self._mtime(st), linkname=first
        )
        self._put(entry, path)
        return True

    def _entry(self, name: bytes, kind: bytes, st: os.stat_result) -> Entry:
        uid, gid = (st.st_uid, st.st_gid) if self._ids is None else self._owner(name, st)
        mtime_ns = st.st_mtime_ns if self._clamp_ns is None else self._mtime(st)
        return Entry(name, kind, st.st_mode & 0o7777, uid, gid, 0, mtime_ns)

    def _owner(self, path: bytes, st: os.stat_result) -> tuple[int, int]:
        if self._ids is None:
            return st.st_uid, st.st_gid
        owner = self._ids.to_image(st.st_uid, st.st_gid)
        if owner is None:
            raise Unrepresentable(path, f"its owner {st.st_uid}:{st.st_gid} has no id in the image")
        return owner

    def _mtime(self, st: os.stat_result) -> int:
        return st.st_mtime_ns if self._clamp_ns is None else min(st.st_mtime_ns, self._clamp_ns)

    def _xattrs(self, path: bytes, real: Real) -> dict[str, bytes]:
        names = list_xattrs(real)
        return self._kept_xattrs(path, names, lambda name: read_xattr(real, name)) if names else {}

    def _kept_xattrs(self, path: bytes, names: list[str], read: Callable[[str], bytes]) -> dict[str, bytes]:
        kept = {}
        for name in names:
            travelling = whiteout.xattr_for_layer(name, self._marks, self._notes.add)
            if travelling is None:
                continue
            if "=" in travelling:
                raise Unrepresentable(path, f"a layer cannot hold an xattr named {travelling!r}")
            try:
                kept[travelling] = read(name)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise Unrepresentable(path, f"its xattr {name} is damaged") from None
        return kept

    def _put(self, entry: Entry, path: bytes) -> None:
        self._add(path)
        self._sink.write(encode(entry))

    def _add(self, path: bytes) -> None:
        if len(path) > _MOST_PATH:
            raise Unrepresentable(path, "its path is longer than the system allows")
        self.count += 1


def _list_xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
