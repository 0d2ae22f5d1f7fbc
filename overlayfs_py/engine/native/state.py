"""What all handlers share: the overlay, the nodes the kernel knows, and how nodes become answers."""

import stat
from collections.abc import Callable, Sequence

from overlayfs_py.engine.caching import CachePolicy
from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.deferral import Busy, Deferrals, Postponed
from overlayfs_py.engine.native.message import Request, Timeout
from overlayfs_py.engine.nodes import NodeTable
from overlayfs_py.engine.setid import without_setid
from overlayfs_py.union.overlay import Attr, AttrChanges, CopyUp, Node, Overlay

# Below this a copy is shorter than the hand-over to a thread, unless it waits for the disk (fsync).
INLINE_SIZE = 1 << 20


class State:
    """One session's state. `notify` sends the kernel a message it did not ask for."""

    def __init__(
        self, overlay: Overlay, policy: CachePolicy, deferrals: Deferrals, notify: Callable[[bytes], None]
    ) -> None:
        self.overlay = overlay
        self.nodes = NodeTable(overlay.root)
        self.deferrals = deferrals
        self.notify = notify
        self.names = Timeout.of(policy.entry)
        self.attrs = Timeout.of(policy.attr)
        self.missing = message.missing(Timeout.of(policy.negative))
        self._inline_size = INLINE_SIZE if overlay.options.volatile else -1

    def node(self, nodeid: int) -> Node:
        """ESTALE for a number the kernel should have forgotten."""
        return self.nodes.inode(nodeid).node

    # -- answers -------------------------------------------------------------------------------

    def entry(self, node: Node) -> bytes:
        """The answer that hands out `node` once more."""
        try:
            attr = self.overlay.getattr(node)
        except BaseException:
            if self.nodes.known(node) is None:
                self.overlay.forget(node)
            raise
        inode = self.nodes.remember(node, attr.ino)
        return message.entry(inode.nodeid, self.names, self.attrs, attr)

    def attributes(self, attr: Attr) -> bytes:
        return message.attributes(self.attrs, attr)

    def take_back(self, nodeid: int, lookups: int) -> None:
        """FORGET: the node goes when the kernel holds it no longer."""
        node = self.nodes.forget(nodeid, lookups)
        if node is None:
            return
        if self.deferrals.busy(node):  # its request was interrupted; a new LOOKUP may find it meanwhile
            self.deferrals.after(node, lambda: self._forget(node))
        else:
            self.overlay.forget(node)

    def _forget(self, node: Node) -> None:
        if self.nodes.known(node) is None:
            self.overlay.forget(node)

    # -- copy-up -------------------------------------------------------------------------------

    def settled(self, node: Node) -> None:
        """Postpone the request while `node` is being copied up."""
        if self.deferrals.busy(node):
            raise Busy(node)

    def need_upper(self, node: Node, *, data: bool) -> None:
        """Give `node` an upper part (`data`: with its contents), or postpone the request until it has one."""
        self.settled(node)
        if node.upper is not None and not (data and node.metacopy):
            return
        lower = lower_chain(node)
        job = self.overlay.copy_up(node, data=data)
        if job is not None:
            if job.size > self._inline_size:
                self.changed(lower[1:])
                raise self._postponed(node, job, lower[:1])
            try:
                job.transfer()
                job.commit()
            except BaseException:
                job.abort()
                raise
        self.changed(lower)

    def _postponed(self, node: Node, job: CopyUp, lower: Sequence[Node]) -> Postponed:
        def settle(error: BaseException | None) -> None:
            try:
                if error is not None:
                    raise error
                job.commit()
            except BaseException:
                job.abort()
                raise
            self.changed(lower)

        return Postponed(job.transfer, settle, node=node)

    def directory(self, nodeid: int) -> Node:
        """The directory to change, with an upper part: there is nothing long about that."""
        node = self.node(nodeid)
        if node.upper is None:
            lower = lower_chain(node)
            self.overlay.copy_up(node)
            self.changed(lower)
        return node

    def changed(self, nodes: Sequence[Node]) -> None:
        """Make the kernel ask again for the attributes of nodes that have got an upper part.

        Safe from the loop's thread, as a request under way holds them: the kernel frees none meanwhile.
        """
        for node in nodes:
            if node.upper is not None:
                self.attributes_changed(node)

    def attributes_changed(self, node: Node) -> None:
        """Make the kernel ask again for what its own requests did not tell it is stale."""
        inode = self.nodes.known(node)
        if inode is not None:
            body = wire.INVAL_INODE_OUT.pack(inode.nodeid, -1, 0)
            self.notify(message.notification(wire.NOTIFY_INVAL_INODE, body))

    def drop_setid(self, node: Node) -> None:
        """Clear set-id bits after a change of the contents by somebody without CAP_FSETID."""
        mode = self.overlay.getattr(node).mode
        wanted = without_setid(mode)
        if wanted != mode:
            self.change_mode(node, wanted)

    def change_mode(self, node: Node, mode: int) -> None:
        """Set the permission bits, which the kernel does not know of yet."""
        self.overlay.setattr(node, AttrChanges(mode=stat.S_IMODE(mode)))
        self.attributes_changed(node)


def lower_chain(node: Node | None) -> list[Node]:
    """`node` and the directories above it that have no upper part: what a copy-up may change."""
    chain = []
    while node is not None and node.upper is None:
        chain.append(node)
        node = node.parent
    return chain


Handler = Callable[..., bytes | None]
__all__ = ["Handler", "Request", "State"]
