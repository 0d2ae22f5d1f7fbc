"""Path walking over `union.Overlay`, as the kernel's name lookup does it, for root."""

import errno
import os
import stat
from typing import NamedTuple

from overlayfs_py.union.node import Node
from overlayfs_py.union.overlay import Overlay

MAX_LINKS = 40


def fault(code: int) -> OSError:
    """The error the kernel would give before asking a file system."""
    return OSError(code, os.strerror(code))


class Place(NamedTuple):
    """Where a path leads: the directory, the last name, and what is there."""

    parent: Node
    name: bytes
    node: Node | None


class Resolver:
    """Resolves paths; nothing is remembered but which nodes were ever handed out."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.handed_out: set[Node] = set()

    def lookup(self, parent: Node, name: bytes) -> Node | None:
        if not parent.is_dir:
            raise fault(errno.ENOTDIR)
        node = self.overlay.lookup(parent, name)
        if node is not None:
            self.handed_out.add(node)
        return node

    def place(self, path: bytes, *, follow: bool) -> Place:
        """The last component may be missing; every other must be a directory or lead to one."""
        return self._place(self.overlay.root, path, follow, [0])

    def _place(self, start: Node, path: bytes, follow: bool, links: list[int]) -> Place:
        here, parts = start, [part for part in path.split(b"/") if part not in (b"", b".")]
        if not parts:
            return Place(start, b"", start)
        for part in parts[:-1]:
            here = self._enter(here, part, links)
        return self._last(here, parts[-1], follow, links)

    def _enter(self, here: Node, part: bytes, links: list[int]) -> Node:
        """One component in the middle: must be there."""
        if part == b"..":
            if here.parent is None:
                raise fault(errno.ENOENT)
            return here.parent
        found = self._last(here, part, True, links)
        if found.node is None:
            raise fault(errno.ENOENT)
        if not found.node.is_dir:
            raise fault(errno.ENOTDIR)
        return found.node

    def _last(self, here: Node, part: bytes, follow: bool, links: list[int]) -> Place:
        if part == b"..":
            above = self._enter(here, part, links)
            return Place(above, b"", above)
        node = self.lookup(here, part)
        if node is None or node.kind != stat.S_IFLNK or not follow:
            return Place(here, part, node)
        links[0] += 1
        if links[0] > MAX_LINKS:
            raise fault(errno.ELOOP)
        target = self.overlay.readlink(node)
        if target.startswith(b"/"):
            # Another tree than ours; no sequence uses an absolute link that leads anywhere.
            raise fault(errno.ENOENT)
        return self._place(here, target, follow, links)

    def parent(self, path: bytes) -> Node:
        """The directory a path's last name is in; that name is not looked at."""
        here = self.overlay.root
        for part in [part for part in path.split(b"/") if part not in (b"", b".")][:-1]:
            here = self._enter(here, part, [0])
        return here

    def node(self, path: bytes, *, follow: bool) -> Node:
        """What is at a path; ENOENT when nothing is."""
        found = self.place(path, follow=follow).node
        if found is None:
            raise fault(errno.ENOENT)
        return found

    def vacancy(self, path: bytes) -> Place:
        """Where something new can go; EEXIST when the place is taken."""
        place = self.place(path, follow=False)
        if place.node is not None:
            raise fault(errno.EEXIST)
        return place

    def occupied(self, path: bytes) -> tuple[Place, Node]:
        """A name that is there, not followed."""
        place = self.place(path, follow=False)
        if place.node is None:
            raise fault(errno.ENOENT)
        return place, place.node
