"""Listing directories without opens: every READDIR stands alone, so its cookie must mean the same for ever.

A name's cookie is a number made from the name, and names are listed in the order of their cookies, as ext4
does. So readers that go on where they stopped miss nothing that was there all the time and see nothing
twice, whatever was added or removed meanwhile, and no reader disturbs another. A snapshot is kept only
from one READDIR to the next.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter

from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import Row, State
from overlayfs_py.union.overlay import Node, Overlay

_DT_DIR = 4
_DOT, _DOT_DOT = 1, 2  # cookies; those of names are larger
_COOKIE_MASK = (1 << 62) - 1
_SNAPSHOTS = 16
_NOTHING = message.missing(message.Timeout(0, 0))

_cookie = itemgetter(0)


class DirectoryRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._overlay = state.overlay
        self._snapshots = state.snapshots

    def readdir(
        self, request: Request, fh: int, offset: int, size: int, flags: int, owner: int, open_flags: int
    ) -> bytes:
        node = self._state.node(request.nodeid)
        self._state.listed(node)
        return self._packed(node, offset, size, wire.DIRENT.size, _bare)

    def readdirplus(
        self, request: Request, fh: int, offset: int, size: int, flags: int, owner: int, open_flags: int
    ) -> bytes:
        node = self._state.node(request.nodeid)
        describe = partial(self._described, request.pid)
        return self._packed(node, offset, size, wire.DIRENT_PLUS.size, describe)

    def releasedir(self, request: Request, fh: int, flags: int, release_flags: int, owner: int) -> bytes:
        return b""

    def _packed(
        self, node: Node, offset: int, room: int, fixed: int, describe: Callable[[Node, bytes, int], bytes]
    ) -> bytes:
        """The names behind cookie `offset` as far as they fit, each with `fixed` bytes before it."""
        parts = []
        rows, start = self._rows_after(node, offset)
        for position in range(start, len(rows)):
            cookie, name, ino, kind = rows[position]
            room -= fixed + len(name) + wire.DIRENT_ALIGNMENT - 1 & -wire.DIRENT_ALIGNMENT
            if room < 0:
                break
            parts.append(message.dirent(name, ino, kind, cookie, describe(node, name, cookie)))
        return b"".join(parts)

    def _described(self, asker: int, node: Node, name: bytes, cookie: int) -> bytes:
        """What LOOKUP would answer; for names that make no node an answer without one."""
        if cookie > _DOT_DOT:
            try:
                found = self._overlay.find(node, name)
                if found is not None:
                    return self._state.found(*found, asker)
            except OSError:  # listed all the same: using the name will say what is wrong
                pass
        return _NOTHING

    def _rows_after(self, node: Node, cookie: int) -> tuple[list[Row], int]:
        """The directory's rows, and where those behind `cookie` begin."""
        rows = self._snapshots.pop(node, None) if cookie else None
        if rows is None:
            rows = snapshot(self._overlay, node)
        start = bisect_right(rows, cookie, key=_cookie)
        if start < len(rows):  # else the reader knows now that this was all
            self._snapshots[node] = rows
            if len(self._snapshots) > _SNAPSHOTS:
                self._snapshots.popitem(last=False)
        return rows, start


def handed_out(listing: bytes | memoryview) -> Iterator[int]:
    """The nodeids in an answer to READDIRPLUS, each once for each time that it was handed out."""
    at = 0
    while at < len(listing):
        nodeid, *_, length, _ = wire.DIRENT_PLUS.unpack_from(listing, at)
        if nodeid:
            yield nodeid
        at += wire.DIRENT_PLUS.size + length + wire.DIRENT_ALIGNMENT - 1 & -wire.DIRENT_ALIGNMENT


def _bare(node: Node, name: bytes, cookie: int) -> bytes:
    return b""


def snapshot(overlay: Overlay, node: Node) -> list[Row]:
    """All names as rows, ordered by cookie; . and .. first."""
    entries = overlay.list_dir(node).entries
    rows = [(hash(name) & _COOKIE_MASK, name, ino, kind) for name, ino, kind in entries]
    rows.sort()
    _make_unique(rows)
    above = node.parent or node
    here = (_DOT, b".", overlay.getattr(node).ino, _DT_DIR)
    return [here, (_DOT_DOT, b"..", overlay.getattr(above).ino, _DT_DIR), *rows]


def _make_unique(rows: list[Row]) -> None:
    """Names with equal numbers, next to impossible, get one more each."""
    last = _DOT_DOT
    for position, row in enumerate(rows):
        if row[0] <= last:
            rows[position] = (last + 1, *row[1:])
        last = rows[position][0]
