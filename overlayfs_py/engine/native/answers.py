"""Replies with nodes and attributes, and how long the kernel may cache them."""

from overlayfs_py.engine.caching import CachePolicy
from overlayfs_py.engine.native import message
from overlayfs_py.engine.native.message import Timeout
from overlayfs_py.engine.native.passthrough import Backings
from overlayfs_py.engine.nodes import NodeTable
from overlayfs_py.union.overlay import Attr, Node, Overlay

NOT_KEPT = Timeout(0, 0)


class Answers:
    """`names` and `attrs`: how long the kernel caches names and attributes; `missing`: the negative entry."""

    def __init__(self, overlay: Overlay, nodes: NodeTable, backings: Backings, policy: CachePolicy) -> None:
        self._overlay = overlay
        self._nodes = nodes
        self._backings = backings
        self.names = Timeout.of(policy.entry)
        self.attrs = Timeout.of(policy.attr)
        self.missing = message.missing(Timeout.of(policy.negative))

    def entry(self, node: Node, kept: Timeout | None = None) -> bytes:
        """Return the entry reply for a node that is new or locked by the requester, so its attributes cannot
        go stale in flight. `kept`: how long the kernel may cache the attributes, if not as usual.
        """
        inode, attr = self._nodes.hand_out(self._overlay, node)
        return message.entry(inode.nodeid, self.names, self.kept(node) if kept is None else kept, attr)

    def made(self, node: Node, attr: Attr) -> bytes:
        """As `entry`, for a new inode, which has no file capability (benchmarks: create+write+close)."""
        inode = self._nodes.remember(node, attr[0])
        inode.uncapable = True
        return message.entry(inode.nodeid, self.names, self.attrs, attr)

    def found(self, node: Node, attr: Attr, requester: int) -> bytes:
        """As `entry`, with known attributes, for the thread `requester` (benchmarks: stat, first)."""
        inode = self._nodes.remember(node, attr[0])
        if inode.requester != requester:
            inode.sent_to(requester)
        return message.entry(inode.nodeid, self.names, self.kept(node), attr)

    def attributes(self, node: Node, attr: Attr) -> bytes:
        return message.attributes(self.kept(node), attr)

    def kept(self, node: Node) -> Timeout:
        """How long the kernel may cache the attributes: not at all while it writes to the file by
        passthrough.
        """
        written = self._backings.written
        return NOT_KEPT if written and node in written else self.attrs
