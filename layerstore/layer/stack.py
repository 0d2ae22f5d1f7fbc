"""The directories that a layer is read from, stacked, in kernel overlayfs's on-disk format."""

from __future__ import annotations

from typing import NamedTuple

from overlayfs_py.union.reading import Reading


class StackPaths(NamedTuple):
    """Paths of one overlay's directories: the upper (or the topmost layer) and the lowers, topmost first.

    `userxattr`: the overlay's marks are ``user.overlay.*`` instead of ``trusted.overlay.*``. `work` is the
    work directory of a stack mounted with index=on; its index says which lower hard links have become one
    upper file. The lowers are read only where the upper refers to them (redirects, metacopy files, hard
    links) and by `diff`.
    """

    upper: bytes
    lowers: tuple[bytes, ...] = ()
    userxattr: bool = False
    work: bytes | None = None

    def read(self) -> Reading:
        """Open the stack for reading; the caller closes it. Mounts nothing and writes nothing."""
        return Reading(self.upper, self.lowers, work=self.work, userxattr=self.userxattr)
