"""What the kernel is told without having asked: that attributes or listings it keeps are good no longer.

Of the notifications INVAL_INODE alone is sent; the others deadlock or have no use (docs/decisions/0019).
"""

from collections.abc import Callable, Sequence

from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.listings import Listings
from overlayfs_py.engine.nodes import NodeTable
from overlayfs_py.union.overlay import Node, Overlay

# Seconds after which an answer has been taken in.
_TAKEN_IN = 1.0


class Notices:
    """`notify` sends the kernel a message that it did not ask for."""

    def __init__(
        self, overlay: Overlay, nodes: NodeTable, deferrals: Deferrals, notify: Callable[[bytes], None]
    ) -> None:
        self._overlay = overlay
        self._nodes = nodes
        self._deferrals = deferrals
        self._notify = notify
        self.listings = Listings(self._drop_soon)

    def attributes_changed(self, node: Node) -> None:
        """Make the kernel ask again for the attributes of `node`.

        Safe from the loop's thread, as a request under way holds the node: the kernel is not freeing it.
        """
        inode = self._nodes.known(node)
        if inode is not None:
            body = wire.INVAL_INODE_OUT.pack(inode.nodeid, -1, 0)
            self._notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def changed(self, node: Node, changer: int) -> None:
        """`node` was changed by the thread `changer` in a way that makes the kernel drop the attributes it
        has, but not those on their way to somebody else (fi->attr_version stays): void these too.

        So it is with directories whose entries change, with times of change alone, and with what is written
        back (`written_back`).
        """
        self.listings.changed(node)
        inode = self._nodes.known(node)
        if inode is not None and inode.clear_requester(changer):
            self.attributes_changed(node)

    def written_back(self, node: Node) -> None:
        """Pages of `node` that were changed through a mapping have been written: `changed` by nobody in
        particular. In a worker's thread, as such a WRITE need not hold the inode: the kernel may be freeing
        it, for which it waits for our answer, and the notification for that.
        """
        inode = self._nodes.known(node)
        if inode is None:
            return
        if inode.clear_requester(0):
            self._void(node)
        if not inode.mapped:
            inode.mapped = True  # so that LINK is answered with that in mind, but the last one was not
            if self._overlay.getattr(node).nlink > 1:
                self._deferrals.later(_TAKEN_IN, lambda: self._void(node))

    def _void(self, node: Node) -> None:
        self._deferrals.start(lambda: self.attributes_changed(node), lambda error: None)

    def drop_pages(self, nodes: Sequence[Node]) -> None:
        """Make the kernel forget the listings it has of these directories; from a worker's thread only.

        The kernel may have to wait for a reader of the listing, who may wait for the loop.
        """
        for node in nodes:
            inode = self._nodes.known(node)
            if inode is not None:
                body = wire.INVAL_INODE_OUT.pack(inode.nodeid, 0, 0)
                self._notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def _drop_soon(self, node: Node) -> None:
        self._deferrals.start(lambda: self.drop_pages([node]), lambda error: None)
