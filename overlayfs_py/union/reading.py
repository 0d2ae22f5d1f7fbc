"""A stack of directories read without a mount, by the code that a mount finds names with.

For whoever wants to know what an upper changes and what shows in the end: nothing is written, no lock is
taken, and no node is kept longer than its reader keeps it.
"""

import errno
import os
import stat
from collections.abc import Sequence
from types import TracebackType

from overlayfs_py.options import UnionOptions
from overlayfs_py.union.layer import Real
from overlayfs_py.union.listing import dir_index, in_upper
from overlayfs_py.union.lookup import resolve, root_node
from overlayfs_py.union.marks import TRUSTED, USER, DirMarks, FileMarks, Marks
from overlayfs_py.union.node import Directory, Node
from overlayfs_py.union.opening import open_lowers, open_upper_to_read
from overlayfs_py.union.stack import Stack

__all__ = ["DirMarks", "FileMarks", "Node", "Reading", "Real"]


class Reading:
    """An open stack. Owns all descriptors; close it, or use it in a with statement.

    `upper` is the topmost layer, whose marks count; `lowers` are topmost first. `work` is its work directory,
    where names that a mount with index=on left there are of interest. `userxattr`: marks are in
    ``user.overlay.``. `aufs` is the mount option of that name, for the lowers. Raises LayerError for a
    directory that cannot be opened.

    Values are those of the mount: a `Node` has its parts (`upper`, `lowers`, `top`, `data`), a `Real` is one
    place in one layer. Both are good until `close`, descriptors got from them until the next call.
    """

    def __init__(
        self,
        upper: bytes,
        lowers: Sequence[bytes] = (),
        *,
        work: bytes | None = None,
        userxattr: bool = False,
        aufs: str = "off",
    ) -> None:
        options = UnionOptions(
            lower=tuple(lowers), redirect_dir="follow", metacopy=True, userxattr=userxattr, aufs=aufs
        )
        self._stack = Stack(options)
        self.marks = self._stack.marks = Marks(USER if userxattr else TRUSTED)
        try:
            self._stack.upper = open_upper_to_read(self._stack, upper, work)
            open_lowers(self._stack)
            self._stack.number_filesystems()
            self.root = root_node(self._stack)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Reading":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        self._stack.close()

    @property
    def is_indexed(self) -> bool:
        """Whether names that only a lower has may stand for inodes of the upper."""
        return self._stack.indexing

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """What the mount shows as `name` of `directory`; None for nothing. Names of one upper inode are one
        node, whose own name is the first that was looked up.

        EIO: a redirect that makes no sense, or a metacopy file whose data is missing.
        """
        self._stack.trim()
        return resolve(self._stack, directory, name)

    def find(self, path: bytes) -> Node | None:
        """What the mount shows at `path` below the root; no symlink is followed."""
        node: Node | None = self.root
        for name in path.split(b"/"):
            if name:
                node = self.lookup(node, name) if node is not None and node.is_dir else None
        return node

    def without_upper(self, directory: Node) -> Node:
        """`directory` as it was before anything in the upper: its lower parts alone."""
        bare = Directory(directory.parent, directory.name)
        bare.lowers = directory.lowers
        bare.xattr_whiteouts = frozenset(at for at in directory.xattr_whiteouts if at >= 0)
        return bare

    def names(self, directory: Node) -> list[tuple[bytes, int]]:
        """All names that the mount shows in `directory`, with the d_type of the topmost part; EACCES for one
        that may not be listed.
        """
        return [(name, kind) for name, (_, _, kind) in self._entries(directory).items()]

    def upper_names(self, directory: Node) -> tuple[list[tuple[bytes, int]], list[bytes]]:
        """What the upper itself holds in `directory`: names with their d_type, and names it has whiteouts
        for.
        """
        entries = self._entries(directory)
        held = [(name, entry[2]) for name, entry in entries.items() if in_upper(entry)]
        return held, list(dir_index(self._stack, directory).whiteouts)

    def _entries(self, directory: Node) -> dict[bytes, tuple[tuple[int, ...], int, int]]:
        self._stack.trim()
        index = dir_index(self._stack, directory)
        if index.unlisted:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return index.entries

    def is_opaque(self, real: Real) -> bool:
        """Whether this directory of a layer hides what lies below it."""
        return self.marks.read_dir(real).opaque

    def is_redirected(self, real: Real) -> bool:
        """Whether this place of a layer says that its lower parts have another name."""
        if stat.S_ISDIR(real.stat().st_mode):
            return self.marks.read_dir(real).redirect is not None
        return self.marks.read_file(real).redirect is not None
