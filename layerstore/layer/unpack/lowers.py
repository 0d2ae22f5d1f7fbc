"""The merged tree of the layers below the one being unpacked; opened when it is first read.

A tar that never needs them unpacks to the same directory over any layers: `LowerTree.consulted` says
whether it did. The first question depends on the tar alone, so asking sets it even where there are none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from layerstore.layer import whiteout
from layerstore.layer.stack import StackPaths
from layerstore.layer.unpack.attributes import Attributes
from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.union.reading import Marks, Node, Reading, Real, read_xattr


class LowerTree:
    """The merged tree of `lowers`, topmost first; empty when there are none. Close it."""

    consulted = False

    def __init__(self, lowers: Sequence[bytes], *, userxattr: bool) -> None:
        self._lowers = tuple(lowers)
        self._userxattr = userxattr
        self._reading: Reading | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether there are no layers below."""
        return not self._lowers

    def close(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def find(self, path: bytes) -> Node | None:
        """Return what is at `path`, without following symlinks; None for nothing."""
        reading = self._open()
        return reading.find(path) if reading is not None else None

    def _open(self) -> Reading | None:
        self.consulted = True
        if self._reading is None and self._lowers:
            self._reading = StackPaths(self._lowers[0], self._lowers[1:], self._userxattr).read()
        return self._reading

    def attributes(self, found: Node) -> Attributes:
        """Return the attributes as they are on disk, without the overlay's marks."""
        return attributes_on_disk(found.top, whiteout.namespace(self._userxattr))

    def copy(self, found: Node, fd: int) -> None:
        """Copy a file's bytes into the new file `fd`."""
        source_fd = found.data.open(os.O_RDONLY)
        try:
            copy_data(source_fd, fd, os.fstat(source_fd).st_size)
        finally:
            os.close(source_fd)

    def root_names(self) -> list[bytes]:
        """Return every name in the merged root, sorted."""
        reading = self._open()
        return sorted(name for name, _ in reading.names(reading.root)) if reading is not None else []


def attributes_on_disk(real: Real, marks: Marks) -> Attributes:
    """Return one entry's attributes without the overlay's marks; escaped xattrs are no marks and stay."""
    st = real.stat()
    xattrs = {name: read_xattr(real, name) for name, _ in whiteout.xattrs_of_users(real, marks)}
    return Attributes(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, xattrs)
