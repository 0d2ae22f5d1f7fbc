"""The layers below the one being unpacked: asked for what a tar leaves out, opened when first asked.

What was never asked for cannot have made a difference: `asked` is what tells whether the unpacked layer is
the same over any other layers. It depends on the tar alone, as nothing the answers say comes before the
first question; so it is set by the question, whether there is anything below or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from layerstore.layer import whiteout
from layerstore.layer.stack import Stack
from layerstore.layer.unpack.attributes import Attributes
from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.union.reading import Marks, Node, Reading, Real, list_xattrs, read_xattr


class Below:
    """The merged tree of `lowers`, topmost first; nothing exists in it when there are none. Close it."""

    asked = False

    def __init__(self, lowers: Sequence[bytes], *, userxattr: bool) -> None:
        self._lowers = tuple(lowers)
        self._userxattr = userxattr
        self._reading: Reading | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether there are no layers below."""
        return not self._lowers

    def close(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def find(self, path: bytes) -> Node | None:
        """What is at `path`, no symlink followed; None for nothing."""
        reading = self._open()
        return reading.find(path) if reading is not None else None

    def _open(self) -> Reading | None:
        self.asked = True
        if self._reading is None and self._lowers:
            self._reading = Stack(self._lowers[0], self._lowers[1:], self._userxattr).read()
        return self._reading

    def attributes(self, found: Node) -> Attributes:
        """As they are on disk, without the overlay's marks."""
        return attributes_on_disk(found.top, whiteout.namespace(self._userxattr))

    def copy(self, found: Node, fd: int) -> None:
        """Copy a file's bytes into the new file `fd`."""
        source_fd = found.data.open(os.O_RDONLY)
        try:
            copy_data(source_fd, fd, os.fstat(source_fd).st_size)
        finally:
            os.close(source_fd)

    def root_names(self) -> list[bytes]:
        """Every name in the merged root."""
        reading = self._open()
        return sorted(name for name, _ in reading.names(reading.root)) if reading is not None else []


def attributes_on_disk(real: Real, marks: Marks) -> Attributes:
    """The attributes of one entry without the overlay's marks; what is escaped is no mark, and stays."""
    st = real.stat()
    xattrs = {
        name: read_xattr(real, name)
        for name in list_xattrs(real)
        if whiteout.xattr_for_layer(name, marks, lambda _line: None) is not None
    }
    return Attributes(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, xattrs)
