"""Where a layer comes from: directories in kernel overlayfs's on-disk form, stacked."""

from __future__ import annotations

from typing import NamedTuple

from overlayfs_py.union.reading import Reading


class StackPaths(NamedTuple):
    """Directories of one overlay: the upper (or the topmost layer to read), and the lowers, topmost first.

    `userxattr` tells which namespace the overlay's marks are in: ``user.overlay.`` instead of
    ``trusted.overlay.``. `work` is the work directory of a stack that is mounted with index=on: its index
    says which lower hard links have become one upper file. The lowers are opened only where the upper
    refers to them (redirects, metacopy files, hard links, `changes`).
    """

    upper: bytes
    lowers: tuple[bytes, ...] = ()
    userxattr: bool = False
    work: bytes | None = None

    def read(self) -> Reading:
        """The stack, opened; the caller closes it. Nothing is mounted or written."""
        return Reading(self.upper, self.lowers, work=self.work, userxattr=self.userxattr)
