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
from layerstore.layer.attributes import Attributes
from layerstore.layer.merged import Found, Merged, Part
from layerstore.layer.stack import Stack
from overlayfs_py.syscalls.copy import copy_data

_O_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Below:
    """The merged tree of `lowers`, topmost first; nothing exists in it when there are none. Close it."""

    asked = False

    def __init__(self, lowers: Sequence[bytes], *, userxattr: bool) -> None:
        self._lowers = tuple(lowers)
        self._userxattr = userxattr
        self._merged: Merged | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether there are no layers below."""
        return not self._lowers

    def close(self) -> None:
        if self._merged is not None:
            self._merged.close()

    def find(self, path: bytes) -> Found | None:
        """What is at `path`, no symlink followed; None for nothing."""
        merged = self._open()
        return merged.resolve(merged.root, path) if merged is not None else None

    def _open(self) -> Merged | None:
        self.asked = True
        if self._merged is None and self._lowers:
            self._merged = Merged(Stack(self._lowers[0], self._lowers[1:], self._userxattr))
        return self._merged

    def target(self, found: Found) -> bytes | None:
        """Where a symlink points to; None for anything else."""
        if not stat.S_ISLNK(found.st.st_mode):
            return None
        merged = self._open()
        assert merged is not None
        dir_fd, name = merged.at(found.parts[0])
        return os.readlink(name, dir_fd=dir_fd)

    def attributes(self, found: Found) -> Attributes:
        """As they are on disk, without the overlay's marks."""
        merged = self._open()
        assert merged is not None
        return attributes_on_disk(merged, found.parts[0], found.st)

    def copy(self, found: Found, fd: int) -> None:
        """Copy a file's bytes into the new file `fd`."""
        merged = self._open()
        assert merged is not None
        assert found.data is not None
        dir_fd, name = merged.at(found.data)
        source_fd = os.open(name, _O_FILE, dir_fd=dir_fd)
        try:
            copy_data(source_fd, fd, os.fstat(source_fd).st_size)
        finally:
            os.close(source_fd)

    def root_names(self) -> list[bytes]:
        """Every name in the merged root."""
        merged = self._open()
        return sorted(merged.names(merged.root)) if merged is not None else []


def attributes_on_disk(merged: Merged, part: Part, st: os.stat_result) -> Attributes:
    """The attributes of one entry without the overlay's marks; what is escaped is no mark, and stays."""
    xattrs = {
        name: merged.xattr(part, name)
        for name in merged.xattrs(part)
        if whiteout.xattr_for_layer(name, merged.marks, lambda _line: None) is not None
    }
    return Attributes(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, xattrs)
