"""What the kernel knows: nodeids, and how often each was handed out (nlookup).

A nodeid is the inode's st_ino while that number is free, because pyfuse3 can only say both at once;
otherwise it is made up and `is_plain` tells that the st_ino has to be said separately. A directory
listing cannot say it separately: for it a name is lent an inode of the right number (`lend`).
"""

import errno
from collections.abc import Callable

from overlayfs_py.errors import fail
from overlayfs_py.union.overlay import Attr, Node, Overlay

ROOT_ID = 1
_MADE_UP = 1 << 62
NOBODY, OTHERS = -1, -2  # beside thread numbers


# Tables are made anew, smaller, once that many inodes went, and most of those there were.
_MANY = 4096


class Inode:
    """One inode that the kernel holds. `setid`: it was seen with set-user-ID or set-group-ID bits.
    `uncapable`: it is known to have no file capability, for which the kernel asks before writes. `mapped`:
    pages of it were changed through a mapping. `asker`: the thread that was sent its attributes since
    `outdated` was asked last, or OTHERS for several.

    `main`: for a second number lent to a node's name, the inode that the node really has. `generation`
    tells it from those that had its number before, for whoever kept a file handle.
    """

    __slots__ = ("asker", "generation", "lookups", "main", "mapped", "node", "nodeid", "setid", "uncapable")

    def __init__(self, node: Node, nodeid: int, generation: int, main: "Inode | None" = None) -> None:
        self.node = node
        self.generation = generation
        self.nodeid = nodeid
        self.main = main
        self.lookups = 0
        self.asker = NOBODY
        self.mapped = self.setid = self.uncapable = False

    def is_plain(self, ino: int) -> bool:
        """Whether nodeid and st_ino are one number."""
        return self.nodeid == ino

    def answered(self, asker: int) -> None:
        """Its attributes are sent to the thread `asker`, which may take a while until it takes them in."""
        if self.asker == NOBODY:
            self.asker = asker
        elif asker not in (NOBODY, self.asker):
            self.asker = OTHERS

    def outdated(self, changer: int) -> bool:
        """Whether somebody else than `changer`, who changed it, may yet take in attributes from before that.

        The changer itself has taken in what it was sent: it went on. 0 is everybody whom we cannot see.
        """
        asker, self.asker = self.asker, NOBODY
        return asker != NOBODY and (asker != changer or changer == 0)


class NodeTable:
    """nodeid <-> node. The root is always there and never forgotten.

    `on_shrink` is called when most of the inodes are gone and their memory may be given back.
    """

    def __init__(self, root: Node, on_shrink: Callable[[], object] = lambda: None) -> None:
        self._root = Inode(root, ROOT_ID, 0)
        self._by_id: dict[int, Inode] = {ROOT_ID: self._root}
        root.outside = self._root
        self._made_up = _MADE_UP
        self._generation = 0  # how many inodes were forgotten
        self._gone = 0
        self._on_shrink = on_shrink

    def __len__(self) -> int:
        return len(self._by_id)

    def inode(self, nodeid: int) -> Inode:
        """ESTALE for a number that was forgotten (a kernel that keeps one has a defect, or speaks NFS)."""
        try:
            return self._by_id[nodeid]
        except KeyError:
            fail(errno.ESTALE)

    def known(self, node: Node) -> Inode | None:
        """The inode of `node`, None when the kernel holds none."""
        inode: Inode | None = node.outside
        return inode

    def remember(self, node: Node, ino: int) -> Inode:
        """Count one more lookup of `node`, whose st_ino is `ino`."""
        inode: Inode | None = node.outside
        if inode is None:
            nodeid = ino if ino > ROOT_ID and ino not in self._by_id else self._make_up()
            inode = Inode(node, nodeid, self._generation)
            self._by_id[nodeid] = node.outside = inode
        inode.lookups += 1
        return inode

    def hand_out(self, overlay: Overlay, node: Node) -> tuple[Inode, Attr]:
        """`remember` with the attributes to answer with. When those cannot be read, a node that the kernel
        does not hold is forgotten.
        """
        try:
            attr = overlay.getattr(node)
        except BaseException:
            if self.known(node) is None:
                overlay.forget(node)
            raise
        return self.remember(node, attr.ino), attr

    def lend(self, node: Node, ino: int) -> Inode | None:
        """An inode whose nodeid is `ino`, counted once more, for a name that the kernel must look up again.

        It is whichever inode has that number, of the same kind as `node`, or a second one of `node`'s
        own; None when neither can be.
        """
        inode = self._by_id.get(ino)
        if inode is None:
            main = self.known(node)
            if main is None or ino <= ROOT_ID:
                return None
            inode = self._by_id[ino] = Inode(node, ino, self._generation, main)
            main.lookups += 1  # so that the node outlives its second number
        elif inode.node.kind != node.kind:
            return None
        inode.lookups += 1
        return inode

    def forget(self, nodeid: int, lookups: int) -> Node | None:
        """Take back `lookups`; the node when the kernel holds it no longer."""
        inode = self._by_id.get(nodeid)
        if inode is None or inode is self._root:
            return None
        inode.lookups -= lookups
        if inode.lookups > 0:
            return None
        del self._by_id[nodeid]
        self._generation += 1
        self.released(1)
        if inode.main is not None:
            return self.forget(inode.main.nodeid, 1)
        inode.node.outside = None
        return inode.node

    def released(self, count: int) -> None:
        """So many more inodes, or names of a directory that was forgotten, take no memory any more."""
        self._gone += count
        if self._gone > _MANY and self._gone > 4 * len(self._by_id):
            self._gone = 0
            self._by_id = dict(self._by_id)  # a dict keeps the room it once had
            self._on_shrink()

    def clear(self) -> list[Node]:
        """Forget everything but the root, as unmounting does; the nodes that were known."""
        inodes = [inode for inode in self._by_id.values() if inode is not self._root]
        self._by_id = {ROOT_ID: self._root}
        for inode in inodes:
            inode.node.outside = None
        return [inode.node for inode in inodes if inode.main is None]

    def _make_up(self) -> int:
        while True:
            self._made_up += 1
            if self._made_up not in self._by_id:
                return self._made_up
