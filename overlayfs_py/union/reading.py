"""A stack of directories read without a mount, by the code that a mount finds names with.

It shows what an upper changes and what results: for commit, diff, export and fsck. Nothing is written, no
lock is taken, and no node is kept longer than its reader keeps it. The directories may change meanwhile: what
has gone is nothing, and nothing leads out of a layer.
"""

import errno
import os
from collections.abc import Sequence
from types import TracebackType

from overlayfs_py.errors import fail
from overlayfs_py.options import UnionOptions
from overlayfs_py.syscalls.dirents import read_dirents
from overlayfs_py.union.layer import Real, is_whiteout_device
from overlayfs_py.union.listing import dir_index, probe_entry
from overlayfs_py.union.lookup import node_of, resolve, root_node
from overlayfs_py.union.marks import TRUSTED, USER, FileMarks, Marks, list_xattrs, read_xattr
from overlayfs_py.union.node import UPPER, Directory, Node
from overlayfs_py.union.opening import open_lowers, open_upper_to_read
from overlayfs_py.union.stack import Stack

__all__ = ["Marks", "Node", "Reading", "Real", "list_xattrs", "read_xattr"]


class _IndexMarks(Marks):
    """Marks of index entries are read once, at the start: a caller that takes an upper apart while it reads
    removes them from inodes that have further names.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.known: dict[bytes, FileMarks] = {}
        self._index: Real | None = None

    def remember(self, entry: Real) -> None:
        """Read the marks of one entry."""
        self.known[entry.name] = super().read_file(entry)
        self._index = entry.parent

    def read_file(self, real: Real) -> FileMarks:
        known = self.known.get(real.name) if real.parent is self._index else None
        return super().read_file(real) if known is None else known


class Reading:
    """An open stack. Owns all descriptors; close it, or use it in a with statement.

    `upper` is the topmost layer, `lowers` are those below it, topmost first. `work` is the upper's work
    directory, if its index of hard links counts. `userxattr`: marks are in ``user.overlay.``. `aufs` is the
    mount option of that name. Raises LayerError for a directory that cannot be opened.

    A `Node` is an entry as the mount shows it, with its parts (`upper`, `lowers`, `top`, `data`); a `Real` is
    one place in one layer. Descriptors got from them are good until the next call.
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
        self.marks = self._stack.marks = _IndexMarks(USER if userxattr else TRUSTED)
        try:
            self._stack.upper = open_upper_to_read(self._stack, upper, work)
            open_lowers(self._stack)
            self._stack.number_filesystems()
            self.root = root_node(self._stack)
            if self._stack.indexing:
                self._read_index(self._stack.work.index)
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

    def _read_index(self, index: Real) -> None:
        for name, _ in self.raw_names(index):
            self.marks.remember(index.child(name))

    @property
    def has_linked_names(self) -> bool:
        """Whether names that only a lower has may stand for inodes of the upper: some index entry has more
        names than the upper holds (``U-1``: as many as the upper's inode has links, less the entry itself).
        """
        return any(found.nlink != b"U-1" for found in self.marks.known.values())

    # -- what the mount shows ------------------------------------------------------------------

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """What the mount shows as `name` of `directory`; None for nothing. Each name has a node of its own.

        EIO: a malformed redirect, or a metacopy file whose data is missing.
        """
        stack = self._stack
        stack.trim()
        stack.hard_links.clear()
        try:
            if directory.index is not None:
                return resolve(stack, directory, name)
            entry = probe_entry(stack, directory, name, covers=False)
            return None if entry is None else node_of(stack, directory, name, entry)[0]
        except FileNotFoundError:  # since it was listed
            return None

    def find(self, path: bytes) -> Node | None:
        """What the mount shows at `path` below the root; no symlink is followed."""
        node: Node | None = self.root
        for name in path.split(b"/"):
            if name:
                node = self.lookup(node, name) if node is not None and node.is_dir else None
        return node

    def names(self, directory: Node) -> list[tuple[bytes, int]]:
        """All names that the mount shows in `directory`, with the d_type of the topmost part; EACCES where
        they cannot be listed.
        """
        self._stack.trim()
        index = dir_index(self._stack, directory)
        if index.unlisted:
            fail(errno.EACCES)
        return [(name, kind) for name, (_, _, kind) in index.entries.items()]

    def without_upper(self, directory: Node) -> Node:
        """`directory` as it was before anything in the upper: its lower parts alone."""
        return _with_parts(directory, None, directory.lowers)

    # -- what one layer holds ------------------------------------------------------------------

    def upper_names(self, directory: Node) -> tuple[list[tuple[bytes, int]], list[bytes]]:
        """What the upper holds of `directory`: names with their d_type, and names that it has whiteouts for.
        The lowers are not read.
        """
        self._stack.trim()
        index = dir_index(self._stack, _with_parts(directory, directory.upper, ()))
        if index.unlisted:
            fail(errno.EACCES)
        return [(name, kind) for name, (_, _, kind) in index.entries.items()], list(index.whiteouts)

    def raw_names(self, directory: Real) -> list[tuple[bytes, int]]:
        """Everything that one layer's directory holds, whiteouts too, with its d_type."""
        fd = directory.open_dir()
        try:
            return [(name, kind) for name, _, kind in read_dirents(fd)]
        finally:
            os.close(fd)

    def is_whiteout(self, real: Real) -> bool:
        """Whether this place of a layer hides its name now."""
        try:
            st = real.stat()
        except FileNotFoundError:
            return False
        return is_whiteout_device(st) or (st.st_size == 0 and self.marks.is_xattr_whiteout(real))


def _with_parts(directory: Node, upper: Real | None, lowers: tuple[Real, ...]) -> Node:
    """The same directory of fewer parts; `lowers` are all of them or none."""
    bare = Directory(directory.parent, directory.name)
    bare.upper, bare.lowers = upper, lowers
    bare.xattr_whiteouts = frozenset(
        at for at in directory.xattr_whiteouts if (upper is not None if at == UPPER else bool(lowers))
    )
    return bare
