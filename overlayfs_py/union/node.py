"""A node: one inode of the merged view, with its upper and lower parts.

A node lives as long as the engine knows it (`known`), a handle has it open (`opens`), or a node that lives is
below it. Paths are never stored: a node knows its parent and its name there, so a rename of a directory
touches one node, however many are below.

There is a node for each inode that the kernel holds, so their size is what a large mount costs in memory:
slots instead of a dict, fields that only directories have in a class of their own, one object for equal
numbers (bench: memory with 100,000 known inodes).
"""

import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from overlayfs_py.union.layer import Real
from overlayfs_py.union.order import NameOrder

UPPER = -1

# One object for all nodes: each stat makes such numbers anew.
_KINDS = {
    kind: kind
    for kind in (
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFCHR,
        stat.S_IFBLK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
    )
}

# An index entry: positions (UPPER or indexes into `lowers`), the topmost real inode number, d_type.
Entry = tuple[tuple[int, ...], int, int]


class OtherFilesystem(NamedTuple):
    """The st_dev of one part of a directory, and the numbers to show for entries that have another."""

    dev: int
    numbers: dict[bytes, int]


class DirIndex:
    """The merged names of one directory, made by one listing and kept up to date by every change.

    `whiteouts`: names for which the upper holds a whiteout, with the lower positions it hides (none: a
    whiteout that hides nothing). `unlisted`: a part may be searched but not listed (an unprivileged mount
    over another user's 0711 directory), so names are probed one by one. `other_filesystems`: the parts that
    are not on their layer's own file system or hold entries that are not on theirs, None for no such part.
    `order`: the names of `entries` in the order of their cookies, once they were listed in parts. `rest`:
    what is still to be done before the index can be used, for a huge directory.
    """

    __slots__ = ("entries", "order", "other_filesystems", "rest", "unlisted", "whiteouts")

    def __init__(self) -> None:
        self.unlisted = False
        self.rest: Iterator[None] | None = None
        self.other_filesystems: dict[int, OtherFilesystem] | None = None
        self.order: NameOrder | None = None
        self.entries: dict[bytes, Entry] = {}
        self.whiteouts: dict[bytes, tuple[int, ...]] = {}


_OF_ALL = (
    "aliases",
    "fd",
    "fd_writable",
    "has_origin",
    "indexed",
    "ino",
    "keys",
    "kind",
    "known",
    "lowers",
    "metacopy",
    "name",
    "nlink",
    "opens",
    "user_data",
    "parent",
    "upper",
)


class Node:
    """One merged inode. Owns its data descriptor `fd` and the descriptors of its parts.

    `nlink`: the union's link count, or -1 when it is the real inode's. `metacopy`: the topmost
    part has no data of its own; the last of `lowers` has. `has_origin`: the inode number is a lower's.
    `indexed`: its upper has an entry in the index directory.
    `aliases`: further (parent, name) pairs of a hard-linked node, a dict's keys. `user_data`: what the
    engine keeps with the node; the union neither reads nor changes it.
    """

    __slots__ = _OF_ALL

    is_dir = False
    # What a Directory has for itself; most nodes are files, and there are many of them.
    children: "dict[bytes, Node] | None" = None
    impure = False
    index: DirIndex | None = None
    inherits: tuple[int | None, bytes | None] | None = None
    xattr_whiteouts: frozenset[int] = frozenset()

    def __init__(self, kind: int, parent: "Node | None", name: bytes) -> None:
        self.kind = _KINDS.get(kind, kind)
        self.parent = parent
        self.name = name
        self.upper: Real | None = None
        self.lowers: tuple[Real, ...] = ()
        self.ino = 0
        self.nlink = -1
        self.opens = 0
        self.fd = -1
        self.fd_writable = False
        self.metacopy = False
        self.has_origin = False
        self.indexed = False
        self.known = False
        self.aliases: dict[tuple[Node, bytes], None] | None = None
        self.keys: tuple[tuple[int, int], ...] = ()
        self.user_data: Any = None

    def __repr__(self) -> str:
        return (
            f"Node({self.name!r}, {stat.filemode(self.kind)}, upper={self.upper}, lowers={len(self.lowers)})"
        )

    @property
    def is_file(self) -> bool:
        return self.kind == stat.S_IFREG

    @property
    def is_symlink(self) -> bool:
        return self.kind == stat.S_IFLNK

    @property
    def top(self) -> Real:
        """The part whose metadata counts."""
        return self.upper or self.lowers[0]

    @property
    def copied(self) -> Real:
        """The upper part, of a node that has been copied up."""
        assert self.upper is not None
        return self.upper

    @property
    def data(self) -> Real:
        """The part whose data counts."""
        return self.lowers[-1] if self.metacopy else self.top

    @property
    def directory(self) -> "Node":
        """The directory that the node has a name in; not of the root or of a node without a name."""
        assert self.parent is not None
        return self.parent

    @property
    def is_root(self) -> bool:
        return self.parent is None and self.name == b""

    @property
    def unlinked(self) -> bool:
        """The last known name is gone (a root has the empty name and never counts)."""
        return self.parent is None and self.name != b""

    @property
    def carries_marks(self) -> bool:
        """Its upper entry has marks that a lookup must read: the directory that gets it becomes impure."""
        return self.has_origin or self.metacopy or (self.is_dir and bool(self.lowers))

    def attach(self, parent: "Node", name: bytes) -> None:
        """Make the node known under `name` of `parent`; a further name of a hard link is kept as an alias."""
        if parent.children is None:
            parent.children = {}
        parent.children[name] = self
        self.known = True
        if self.parent is None:
            self.parent, self.name = parent, name
        elif self.parent is not parent or self.name != name:
            if self.aliases is None:
                self.aliases = {}
            self.aliases[parent, name] = None

    def detach(self, parent: "Node", name: bytes) -> None:
        """Forget one name; another known name, when there is one, becomes the node's own."""
        if parent.children is not None and parent.children.get(name) is self:
            del parent.children[name]
        if self.aliases and (parent, name) in self.aliases:
            del self.aliases[parent, name]
        elif self.parent is parent and self.name == name:
            if self.aliases:
                (self.parent, self.name), _ = self.aliases.popitem()
            else:
                self.parent = None

    def prefer(self, parent: "Node", name: bytes) -> None:
        """Make (parent, name) the name that operations use; the one used so far stays known."""
        if self.parent is not None and (self.parent, self.name) != (parent, name):
            if self.aliases:
                self.aliases.pop((parent, name), None)
            if self.known:
                self.aliases = self.aliases or {}
                self.aliases[self.parent, self.name] = None
        self.parent, self.name = parent, name

    def names(self) -> "Iterator[tuple[Node, bytes]]":
        """All known (parent, name) pairs; none may come or go meanwhile."""
        if self.parent is not None:
            yield self.parent, self.name
        if self.aliases:
            yield from self.aliases

    def close_fd(self) -> None:
        """Close the data descriptor, which is opened again when needed; for the cache."""
        os.close(self.fd)
        self.fd = -1
        self.fd_writable = False


class Directory(Node):
    """A directory. `xattr_whiteouts`: positions of the parts that may hold xattr whiteouts.
    `inherits`: (gid for new entries or None, default ACL), None when not read yet.
    """

    __slots__ = ("children", "impure", "index", "inherits", "xattr_whiteouts")

    is_dir = True

    def __init__(self, parent: Node | None, name: bytes) -> None:
        super().__init__(stat.S_IFDIR, parent, name)
        self.children = None
        self.impure = False
        self.index = None
        self.inherits = None
        self.xattr_whiteouts = frozenset()
