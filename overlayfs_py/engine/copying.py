"""Copy-up decisions of both engines: how long a copy may block the event loop, and what it changes that the
kernel must be notified of.
"""

from overlayfs_py.union.overlay import Node, Overlay

# Bytes. A shorter copy takes less time than its hand-over to a thread, unless it waits for the disk (fsync);
# benchmarks: copy-up by chmod, copy-up by append.
INLINE_SIZE = 1 << 20


class CopyUpEffects:
    """What a copy-up of `node` changes besides its contents; make it before the copy-up.

    A directory's link count and size change with its upper part, and the copy of one of several hard links
    may be a new inode.
    """

    __slots__ = ("_ino", "_overlay", "lower", "node")

    def __init__(self, overlay: Overlay, node: Node) -> None:
        self._overlay = overlay
        self._ino = node.ino
        self.node = node
        self.lower = overlay.copy_up_chain(node)

    def copied_up(self) -> list[Node]:
        """Return the nodes copied up since; the kernel must read their attributes again."""
        needs = self._overlay.needs_copy_up
        return [node for node in self.lower if not needs(node, data=False)]

    @property
    def renumbered(self) -> bool:
        """Whether the inode number of the node has changed."""
        return self.node.ino != self._ino
