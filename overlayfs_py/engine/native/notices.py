"""Notifications to the kernel: attributes or listings in its caches are stale.

Only INVAL_INODE is sent; the other notifications deadlock or have no use (decision 0019).
"""

from collections.abc import Callable, Sequence

from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.listings import Listings
from overlayfs_py.engine.nodes import NodeTable
from overlayfs_py.union.overlay import Node, Overlay

# Seconds after which the kernel has applied an answer.
_APPLIED_AFTER = 1.0


class Notices:
    """`notify` sends a notification to the kernel."""

    def __init__(
        self, overlay: Overlay, nodes: NodeTable, deferrals: Deferrals, notify: Callable[[bytes], None]
    ) -> None:
        self._overlay = overlay
        self._nodes = nodes
        self._deferrals = deferrals
        self._notify = notify
        self.listings = Listings(self._drop_soon)

    def attributes_changed(self, node: Node) -> None:
        """Make the kernel read the attributes of `node` again.

        Safe in the loop's thread, since the present request holds the node: the kernel is not freeing it.
        """
        inode = self._nodes.known(node)
        if inode is not None:
            body = wire.INVAL_INODE_OUT.pack(inode.nodeid, -1, 0)
            self._notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def changed(self, node: Node, changer: int) -> None:
        """The thread `changer` has changed `node`: invalidate attributes on their way to other threads.

        The kernel drops its cached attributes with its own request, but for changed directory entries, for a
        new ctime alone and for page write-back (`written_back`) it does not raise fi->attr_version, so it
        would still accept older ones.
        """
        self.listings.changed(node)
        inode = self._nodes.known(node)
        if inode is not None and inode.clear_requester(changer):
            self.attributes_changed(node)

    def written_back(self, node: Node) -> None:
        """Pages of `node` that were changed through a mapping have been written: as `changed`, by any thread.

        A worker sends the notification, since such a WRITE need not hold the inode: the kernel may be freeing
        it and wait for our answer, while the notification waits for that.
        """
        inode = self._nodes.known(node)
        if inode is None:
            return
        if inode.clear_requester(0):
            self._void(node)
        if not inode.mapped:
            inode.mapped = True  # so that later answers to LINK are not cached; an earlier one may be
            if self._overlay.getattr(node).nlink > 1:
                self._deferrals.later(_APPLIED_AFTER, lambda: self._void(node))

    def _void(self, node: Node) -> None:
        self._deferrals.start(lambda: self.attributes_changed(node), lambda error: None)

    def drop_pages(self, nodes: Sequence[Node]) -> None:
        """Make the kernel drop its listings of these directories, or a file's pages; in a worker thread only.

        The kernel may have to wait for a reader of the listing, which may wait for the loop.
        """
        for node in nodes:
            inode = self._nodes.known(node)
            if inode is not None:
                body = wire.INVAL_INODE_OUT.pack(inode.nodeid, 0, 0)
                self._notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def _drop_soon(self, node: Node) -> None:
        self._deferrals.start(lambda: self.drop_pages([node]), lambda error: None)
