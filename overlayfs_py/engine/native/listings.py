"""The directory listings that the kernel caches, and when they must go (decision 0027)."""

import itertools
from collections.abc import Callable

from overlayfs_py.engine.native.cookies import Cookies
from overlayfs_py.union.overlay import Node

# LOOKUPs after which a listing with attributes would have been faster (benchmarks: git status).
_ONE_BY_ONE = 32


class Listings:
    """`stale`: directories whose listing must go before the present request is answered. `cookies`:
    directories of which the kernel has begun a listing. `bare`: directories listed without attributes, with
    the number of LOOKUPs since. `drop` makes the kernel drop a listing, soon.
    """

    def __init__(self, drop: Callable[[Node], None]) -> None:
        self._drop = drop
        self.stale: list[Node] = []
        self.cookies: dict[Node, Cookies] = {}
        self.tags = itertools.count()
        self.bare: dict[Node, int] = {}

    def forget(self, node: Node) -> None:
        """The kernel no longer holds the directory."""
        self.bare.pop(node, None)
        self.cookies.pop(node, None)

    def changed(self, node: Node) -> None:
        """Names of the directory have changed."""
        if node in self.cookies:
            self.cookies[node].changed()

    def listed(self, node: Node) -> None:
        """The kernel gets a listing of `node` without attributes, which it caches."""
        self.bare.setdefault(node, 0)

    def looked_up(self, parent: Node) -> None:
        """Count a LOOKUP in `parent`; after several, drop its listing without attributes.

        Having seen the LOOKUPs, the kernel lists again with attributes (READDIRPLUS), which saves the others.
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
        """The present answer completes the kernel's listing of `node`."""
        self.cookies.pop(node, None)
        if cookies.is_wrong:
            self._drop(node)

    def misnumbered(self, node: Node) -> None:
        """An entry of `node` has a new st_ino: listings with the old one must go.

        An incomplete one must be completed first, since the kernel begins no other before.
        """
        cookies = self.cookies.get(node)
        if cookies is None:
            self.stale.append(node)
        else:
            cookies.misnumbered()
