"""The inodes that the kernel holds: nodeids, and how often each was handed out (nlookup).

A nodeid equals the inode's st_ino while that number is free, because a pyfuse3 answer has one field for both.
Otherwise it is made up, and `is_plain` says that the st_ino has to be given separately. A directory listing
cannot give it separately: for it a name is lent an inode with the right number (`lend`).
"""

import errno
from collections.abc import Callable

from overlayfs_py.errors import fail
from overlayfs_py.union.overlay import Attr, Node, Overlay

ROOT_ID = 1
_MADE_UP = 1 << 62
NO_THREAD, SEVERAL_THREADS = -1, -2  # no thread has such a number


# The tables are rebuilt, smaller, after this many inodes went, if those were most of all.
_MANY = 4096


class Inode:
    """One inode that the kernel holds.

    `setid`: it was seen with set-user-ID or set-group-ID bits. `uncapable`: it has no file capability, which
    the kernel asks for before writes. `mapped`: pages of it were changed through a mapping. `requester`: the
    thread that received its attributes since the last `clear_requester`; NO_THREAD, or SEVERAL_THREADS.

    `main`: for a second number lent to a node's name, the inode that the node really has. `generation`
    differs from that of earlier inodes with the same number: file handles hold both.
    """

    __slots__ = (
        "generation",
        "lookups",
        "main",
        "mapped",
        "node",
        "nodeid",
        "requester",
        "setid",
        "uncapable",
    )

    def __init__(self, node: Node, nodeid: int, generation: int, main: "Inode | None" = None) -> None:
        self.node = node
        self.generation = generation
        self.nodeid = nodeid
        self.main = main
        self.lookups = 0
        self.requester = NO_THREAD
        self.mapped = self.setid = self.uncapable = False

    def is_plain(self, ino: int) -> bool:
        """Whether nodeid and st_ino are one number."""
        return self.nodeid == ino

    def sent_to(self, requester: int) -> None:
        """Note that the thread `requester` receives attributes, which it may apply some time later."""
        if self.requester == NO_THREAD:
            self.requester = requester
        elif requester not in (NO_THREAD, self.requester):
            self.requester = SEVERAL_THREADS

    def clear_requester(self, changer: int) -> bool:
        """The thread `changer` has changed the inode: whether another thread may still apply older
        attributes.

        The changer itself has applied what it received, as it has sent a request since. 0: which thread it
        was is unknown.
        """
        requester, self.requester = self.requester, NO_THREAD
        return requester != NO_THREAD and (requester != changer or changer == 0)


class NodeTable:
    """nodeid <-> node. The root is always there and never forgotten.

    `on_shrink` is called when most of the inodes are gone and their memory may be given back.
    """

    def __init__(self, root: Node, on_shrink: Callable[[], object] = lambda: None) -> None:
        self._root = Inode(root, ROOT_ID, 0)
        self._by_id: dict[int, Inode] = {ROOT_ID: self._root}
        root.user_data = self._root
        self._made_up = _MADE_UP
        self._generation = 0  # how many inodes were forgotten
        self._gone = 0
        self._on_shrink = on_shrink

    def __len__(self) -> int:
        return len(self._by_id)

    def inode(self, nodeid: int) -> Inode:
        """Return the inode of `nodeid`; ESTALE for a forgotten one (an NFS client may keep it)."""
        try:
            return self._by_id[nodeid]
        except KeyError:
            fail(errno.ESTALE)

    def known(self, node: Node) -> Inode | None:
        """Return the inode of `node`, None when the kernel holds none."""
        inode: Inode | None = node.user_data
        return inode

    def remember(self, node: Node, ino: int) -> Inode:
        """Count one more lookup of `node`, whose st_ino is `ino`; its inode."""
        inode: Inode | None = node.user_data
        if inode is None:
            nodeid = ino if ino > ROOT_ID and ino not in self._by_id else self._make_up()
            inode = Inode(node, nodeid, self._generation)
            self._by_id[nodeid] = node.user_data = inode
        inode.lookups += 1
        return inode

    def hand_out(self, overlay: Overlay, node: Node) -> tuple[Inode, Attr]:
        """`remember` and return the attributes for the answer too. If reading them fails, forget a node that
        the kernel does not hold.
        """
        try:
            attr = overlay.getattr(node)
        except BaseException:
            if self.known(node) is None:
                overlay.forget(node)
            raise
        return self.remember(node, attr.ino), attr

    def lend(self, node: Node, ino: int) -> Inode | None:
        """Return an inode whose nodeid is `ino`, for a name that the kernel must look up again; counts a
        lookup.

        It is the inode with that number if it has the kind of `node`, or else a second one for `node` itself;
        None when neither is possible.
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
        """Take back `lookups`; return the node when the kernel no longer holds it."""
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
        inode.node.user_data = None
        return inode.node

    def released(self, count: int) -> None:
        """Note that `count` more inodes, or names of a forgotten directory, have freed their memory."""
        self._gone += count
        if self._gone > _MANY and self._gone > 4 * len(self._by_id):
            self._gone = 0
            self._by_id = dict(self._by_id)  # a dict never shrinks
            self._on_shrink()

    def clear(self) -> list[Node]:
        """Forget all but the root, as unmounting does; return the nodes that were known."""
        inodes = [inode for inode in self._by_id.values() if inode is not self._root]
        self._by_id = {ROOT_ID: self._root}
        for inode in inodes:
            inode.node.user_data = None
        return [inode.node for inode in inodes if inode.main is None]

    def _make_up(self) -> int:
        while True:
            self._made_up += 1
            if self._made_up not in self._by_id:
                return self._made_up
