"""The listings of directories that the kernel keeps, and when they have to go."""

import itertools
from collections.abc import Callable

from overlayfs_py.engine.native.cookies import Cookies
from overlayfs_py.union.overlay import Node

# LOOKUPs after which a listing without attributes was a mistake.
_ONE_BY_ONE = 32


class Listings:
    """`stale`: directories whose listing must go before the request under way is answered. `cookies`:
    directories of which the kernel has begun a listing. `bare`: those listed without attributes, and how
    many of their names were looked up since. `drop` makes the kernel forget a listing, a little later.
    """

    def __init__(self, drop: Callable[[Node], None]) -> None:
        self._drop = drop
        self.stale: list[Node] = []
        self.cookies: dict[Node, Cookies] = {}
        self.tags = itertools.count()
        self.bare: dict[Node, int] = {}

    def forget(self, node: Node) -> None:
        """The kernel knows the directory no longer."""
        self.bare.pop(node, None)
        self.cookies.pop(node, None)

    def changed(self, node: Node) -> None:
        """Names of the directory have changed."""
        if node in self.cookies:
            self.cookies[node].changed()

    def listed(self, node: Node) -> None:
        """The kernel gets a listing of `node` without attributes, and keeps it."""
        self.bare.setdefault(node, 0)

    def looked_up(self, parent: Node) -> None:
        """One more name of `parent` was asked for by itself. Who goes on like that is better off with a new
        listing, which comes with attributes (READDIRPLUS) once the kernel has seen such LOOKUPs.
        """
        count = self.bare.get(parent, -1)
        if count < 0 or parent in self.cookies:
            return
        if count >= _ONE_BY_ONE:
            del self.bare[parent]
            self._drop(parent)
        else:
            self.bare[parent] = count + 1

    def complete(self, node: Node, cookies: Cookies) -> None:
        """The kernel is told now that its listing of `node` is complete."""
        self.cookies.pop(node, None)
        if cookies.is_wrong:
            self._drop(node)

    def misnumbered(self, node: Node) -> None:
        """An entry of `node` has a new st_ino: listings with the old one must go. One that is being put
        together must be completed first, as the kernel begins no other.
        """
        cookies = self.cookies.get(node)
        if cookies is None:
            self.stale.append(node)
        else:
            cookies.misnumbered()
