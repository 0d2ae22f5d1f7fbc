"""What a request must wait for before it can begin: the names of a huge directory, and what is still to be
forgotten. Both are worked off between other requests.
"""

from overlayfs_py.engine.native.chores import Chores
from overlayfs_py.engine.native.deferral import Busy, Chore, Deferrals
from overlayfs_py.engine.native.forgetting import Backlog
from overlayfs_py.union.overlay import Node, Overlay

# Inodes that are forgotten at once.
_FEW = 100


class Needs:
    """Each method returns when there is nothing to wait for, and else postpones the request (Busy)."""

    def __init__(self, overlay: Overlay, deferrals: Deferrals, chores: Chores, forgotten: Backlog) -> None:
        self._overlay = overlay
        self._deferrals = deferrals
        self._chores = chores
        self._forgotten = forgotten
        self._forgetting: Chore | None = None
        self._listings: dict[Node, Chore] = {}  # directories whose names are being found out

    def names(self, node: Node, *, ordered: bool = False) -> None:
        """Postpone the request until all names of a directory are known (`ordered`: can be listed): of a huge
        one they become so between other requests.
        """
        if not node.is_dir or self._overlay.has_names(node, ordered=ordered):
            return
        chore = self._listings.get(node)
        if chore is None:
            work = self._overlay.listing_work(node, ordered=ordered)
            if work is None:
                return
            chore = self._listings[node] = Chore()
            self._deferrals.hold(chore)
            self._chores.begin(work, lambda: self._names_known(node))
        raise Busy(chore)

    def names_above(self, node: Node) -> None:
        """`names` of those directories in whose upper a copy-up of `node` makes names."""
        for one in self._overlay.copy_up_chain(node):
            if one.parent is not None:
                self.names(one.parent)

    def _names_known(self, node: Node) -> None:
        for then in self._deferrals.release(self._listings.pop(node)):
            then()

    def forgotten(self) -> None:
        """Forget what the kernel has forgotten; postpones the request if that is much."""
        if len(self._forgotten) <= _FEW:
            self._forgotten.clear()
            return
        if self._forgetting is None:
            self._forgetting = Chore()
            self._deferrals.hold(self._forgetting)
            self._chores.begin(self._forgotten.shortened(0), self._all_gone)
        raise Busy(self._forgetting)

    def _all_gone(self) -> None:
        chore, self._forgetting = self._forgetting, None
        for then in self._deferrals.release(chore):
            then()
