"""Write a tree of a workspace as a tar stream, for ``cp NAME:PATH -``: by descriptors alone, no link
followed.

The entries begin with the name of the source; owners, xattrs, hard links, holes and times are kept.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from layerstore.errors import LayerstoreError, printable
from layerstore.layer.tar import sparse
from layerstore.layer.tar.encode import END, encode
from layerstore.layer.tar.entry import (
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TYPE_OF_MODE,
    Entry,
    Extent,
    padding,
)
from layerstore.workspace.resolving import open_again, open_child, read_link
from overlayfs_py.syscalls import as_owner

_NODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_NO_XATTR = frozenset((errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ELOOP))


@dataclass(slots=True)
class Archiver:
    """Writes the object of an ``O_PATH`` descriptor to `out`; `written` counts bytes of files."""

    out: IO[bytes]
    note: Callable[[str], None]
    progress: Callable[[int], None] | None = None
    written: int = 0
    _links: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def write(self, fd: int, name: bytes) -> None:
        """Write the whole archive, with entries at and below `name`."""
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self._tree(fd, status, name)
        else:
            self._other(fd, status, name)
        self.out.write(END)
        self.out.flush()

    def _tree(self, fd: int, status: os.stat_result, name: bytes) -> None:
        levels = [self._enter(fd, status, name)]
        try:
            while levels:
                dir_fd, path, names = levels[-1]
                child = next(names, None)
                if child is None:
                    os.close(levels.pop()[0])
                    continue
                below = path + b"/" + child
                node = open_child(dir_fd, child, below)
                if node is None:
                    continue
                try:
                    status = os.fstat(node)
                    if stat.S_ISDIR(status.st_mode):
                        levels.append(self._enter(node, status, below))
                    else:
                        self._other(node, status, below)
                finally:
                    os.close(node)
        finally:
            for dir_fd, _, _ in levels:
                os.close(dir_fd)

    def _enter(self, fd: int, status: os.stat_result, path: bytes) -> tuple[int, bytes, Iterator[bytes]]:
        entry = _entry(path + b"/", DIRECTORY, status)
        entry.xattrs = _xattrs(fd)
        self.out.write(encode(entry))
        dir_fd = open_again(fd, os.O_RDONLY | os.O_DIRECTORY, path)
        return dir_fd, path, iter(sorted(map(os.fsencode, os.listdir(dir_fd))))

    def _other(self, fd: int, status: os.stat_result, path: bytes) -> None:
        if stat.S_ISSOCK(status.st_mode):
            self.note(f"{printable(path)} is a socket and is not copied")
            return
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                entry = _entry(path, HARD_LINK, status)
                entry.linkname = first
                self.out.write(encode(entry))
                return
        entry = _entry(path, TYPE_OF_MODE[stat.S_IFMT(status.st_mode)], status)
        entry.xattrs = _xattrs(fd)
        if entry.kind == REGULAR:
            self._file(fd, entry)
            return
        if entry.kind == SYMLINK:
            entry.linkname = read_link(fd)
        elif not stat.S_ISFIFO(status.st_mode):
            entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
        self.out.write(encode(entry))

    def _file(self, node: int, entry: Entry) -> None:
        fd = open_again(node, os.O_RDONLY | os.O_NONBLOCK, entry.name)
        try:
            status = os.fstat(fd)
            entry.size = entry.stored = status.st_size
            entry.extents = sparse.find_extents(fd, entry.size) if sparse.may_be_sparse(status) else None
            head = b""
            extents: list[Extent] = [(0, entry.size)]
            if entry.extents is not None:
                extents = entry.extents
                head = sparse.encode_map(extents, entry.size)
                entry.stored = len(head) + sum(length for _, length in extents)
            self.out.write(encode(entry) + head)
            for offset, length in extents:
                self._data(fd, offset, length, entry.name)
            self.out.write(bytes(padding(entry.stored)))
        finally:
            os.close(fd)

    def _data(self, fd: int, offset: int, length: int, path: bytes) -> None:
        end = offset + length
        while offset < end:
            data = os.pread(fd, min(_PIECE, end - offset), offset)
            if not data:
                raise LayerstoreError(f"{printable(path)} was truncated while it was read")
            self.out.write(data)
            offset += len(data)
            self.written += len(data)
            if self.progress is not None:
                self.progress(self.written)


def _entry(path: bytes, kind: bytes, status: os.stat_result) -> Entry:
    mode = 0o777 if kind == SYMLINK else stat.S_IMODE(status.st_mode)
    return Entry(path, kind, mode, status.st_uid, status.st_gid, mtime_ns=status.st_mtime_ns)


def _xattrs(fd: int) -> dict[str, bytes]:
    """Return the xattrs of an object; those of a symbolic link cannot be read by descriptor."""
    try:
        return {name: as_owner.getxattr_at(fd, b"", name) for name in as_owner.listxattr_at(fd, b"")}
    except OSError as error:
        if error.errno in _NO_XATTR:
            return {}
        raise
