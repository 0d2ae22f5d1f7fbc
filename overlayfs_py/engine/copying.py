"""What both engines decide about copy-ups: how long one may hold up the event loop, and what one changes
that the kernel does not know of.
"""

from overlayfs_py.union.overlay import Node, Overlay

# Bytes. A shorter copy takes less time than handing it to a thread, unless it waits for the disk (fsync).
INLINE_SIZE = 1 << 20


class CopyUpEffects:
    """What a copy-up of `node` may change, noted before it happens.

    A directory's link count and size differ once it has an upper part, and the copy of one of several hard
    links is an inode of its own.
    """

    __slots__ = ("_ino", "_overlay", "lower", "node")

    def __init__(self, overlay: Overlay, node: Node) -> None:
        self._overlay = overlay
        self._ino = node.ino
        self.node = node
        self.lower = overlay.copy_up_chain(node)

    def copied_up(self) -> list[Node]:
        """The nodes that have been copied up since, whose attributes the kernel must ask for again."""
        needs = self._overlay.needs_copy_up
        return [node for node in self.lower if not needs(node, data=False)]

    @property
    def renumbered(self) -> bool:
        """Whether the node has another inode number now."""
        return self.node.ino != self._ino
