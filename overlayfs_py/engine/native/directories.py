"""Directory listings without opens: each READDIR stands alone, so a cookie must keep its meaning for ever.

The union numbers the names and lists them in that order. So a reader misses no name that exists all the time,
sees none twice, and does not affect others. An answer always shows the present directory, since the kernel
may add it to a listing that was begun after its reader began.
"""

import stat
from collections.abc import Iterator

from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.cookies import Cookies, Named
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.syscalls.dirents import DT_DIR
from overlayfs_py.union.overlay import Node

_DOTS = [(1, b"."), (2, b"..")]  # their numbers
_REST = 3  # numbers of names are larger
_COSTLY = 200  # names per answer where each takes a lookup, since other requests wait meanwhile
_LEAST_ROOM = 2048  # musl's
_CALLERS_DIRENT = 20  # struct linux_dirent64 with its NUL
_NOTHING = message.missing(message.Timeout(0, 0))


class DirectoryRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._overlay = state.overlay
        self._room_is_known = False

    def readdir(
        self, request: Request, fh: int, offset: int, size: int, flags: int, owner: int, open_flags: int
    ) -> bytes:
        node = self._state.node(request.nodeid)
        self._state.listings.listed(node)
        names, cookies = self._next(node, offset, size, wire.DIRENT.size)
        rows = zip(self._numbered(node, names), cookies, strict=True)
        return b"".join([message.dirent(name, ino, kind, cookie, b"") for (name, ino, kind), cookie in rows])

    def readdirplus(
        self, request: Request, fh: int, offset: int, size: int, flags: int, owner: int, open_flags: int
    ) -> bytes:
        node = self._state.node(request.nodeid)
        names, cookies = self._next(node, offset, size, wire.DIRENT_PLUS.size)
        rows = zip(names, cookies, strict=True)
        return b"".join([self._described(node, named, cookie, request.pid) for named, cookie in rows])

    def releasedir(self, request: Request, fh: int, flags: int, release_flags: int, owner: int) -> bytes:
        return b""

    def _next(self, node: Node, cookie: int, size: int, fixed: int) -> tuple[list[Named], list[int]]:
        """Return the names behind `cookie` that fit, with `fixed` bytes before each, and their cookies."""
        state = self._state
        state.needs.names(node, ordered=True)
        known = state.listings.cookies.get(node)
        cookies = known or Cookies(state.listings.tags)
        if known is None and not cookie:
            state.listings.cookies[node] = cookies
        start, tag = cookies.place(cookie)
        names = [dot for dot in _DOTS if dot[0] > start]
        most = _COSTLY if node.impure else size // (fixed + wire.DIRENT_ALIGNMENT)
        names += self._overlay.names_after(node, start, most + 1)  # one more, to know what follows
        count = min(self._fitting(names, size, fixed), most)
        given = cookies.given(names[:count], tag, names[count] if count < len(names) else None)
        if cookies.answered(cookie, given):
            state.listings.complete(node, cookies)
        return names[: len(given)], given

    def _fitting(self, names: list[Named], size: int, fixed: int) -> int:
        """Return how many of the names fit.

        The kernel requests a page even for a caller with a smaller buffer (before Linux 6.16 for all
        callers). The caller must be able to take all names, as the engine does not learn how many it took.
        """
        self._room_is_known = self._room_is_known or size > wire.PAGE_SIZE
        taken = _LEAST_ROOM if self._room_is_known and size <= wire.PAGE_SIZE else size
        for count, (_, name) in enumerate(names):
            size -= fixed + len(name) + wire.DIRENT_ALIGNMENT - 1 & -wire.DIRENT_ALIGNMENT
            taken -= _CALLERS_DIRENT + len(name) + 7 & ~7
            if size < 0 or taken < 0:
                return count
        return len(names)

    def _described(self, node: Node, named: Named, cookie: int, requester: int) -> bytes:
        """Return a direntplus: the name and what LOOKUP would answer; for a name without a node an empty
        entry.
        """
        name = named[1]
        if named not in _DOTS:
            try:
                found = self._overlay.find(node, name)
                if found is not None:
                    attr = found[1]
                    entry = self._state.answers.found(*found, requester)
                    return message.dirent(name, attr.ino, stat.S_IFMT(attr.mode) >> 12, cookie, entry)
            except OSError:  # list it anyway: using the name gives the error
                pass
        ((_, ino, kind),) = self._numbered(node, [named])
        return message.dirent(name, ino, kind, cookie, _NOTHING)

    def _numbered(self, node: Node, names: list[Named]) -> list[tuple[bytes, int, int]]:
        """Return the names with st_ino and d_type."""
        above = {b".": node, b"..": node.parent or node}
        dots = [
            (name, self._overlay.getattr(above[name]).ino, DT_DIR)
            for place, name in names[:2]
            if place < _REST
        ]
        listed = self._overlay.listed(node, [name for _, name in names[len(dots) :]]).entries
        return dots + listed


def handed_out(listing: bytes | memoryview) -> Iterator[int]:
    """Yield the nodeids in an answer to READDIRPLUS, once for each lookup that it counts."""
    at = 0
    while at < len(listing):
        nodeid, *_, length, _ = wire.DIRENT_PLUS.unpack_from(listing, at)
        if nodeid:
            yield nodeid
        at += wire.DIRENT_PLUS.size + length + wire.DIRENT_ALIGNMENT - 1 & -wire.DIRENT_ALIGNMENT
