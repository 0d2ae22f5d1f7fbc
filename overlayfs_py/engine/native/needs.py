"""What a request may have to wait for: the names of a huge directory, and pending FORGETs. Chores do both
between other requests (benchmarks: list 100,000 names, first).
"""

from overlayfs_py.engine.native.chores import Chores
from overlayfs_py.engine.native.deferral import Busy, Chore, Deferrals
from overlayfs_py.engine.native.forgetting import Backlog
from overlayfs_py.union.overlay import Node, Overlay

# So many FORGETs are done at once.
_FEW = 100


class Needs:
    """Each method returns if there is nothing to wait for; otherwise it postpones the request (raises
    Busy).
    """

    def __init__(self, overlay: Overlay, deferrals: Deferrals, chores: Chores, forgotten: Backlog) -> None:
        self._overlay = overlay
        self._deferrals = deferrals
        self._chores = chores
        self._forgotten = forgotten
        self._forgetting: Chore | None = None
        self._listings: dict[Node, Chore] = {}  # directories whose names are being read

    def names(self, node: Node, *, ordered: bool = False) -> None:
        """Postpone the request until all names of a directory are known (`ordered`: also sorted for listing).

        Those of a huge directory are read between other requests.
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
        """Call `names` for the directories in which a copy-up of `node` makes names."""
        for one in self._overlay.copy_up_chain(node):
            if one.parent is not None:
                self.names(one.parent)

    def _names_known(self, node: Node) -> None:
        for then in self._deferrals.release(self._listings.pop(node)):
            then()

    def forgotten(self) -> None:
        """Do the pending FORGETs; postpones the request if they are many."""
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
