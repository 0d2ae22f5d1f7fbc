"""Merged directories: one listing of all parts makes the index that lookups and readdir answer from.

Lower layers do not change while mounted and the upper changes only through the mount,
so an index stays right when every change updates it.

The kernel keeps such a list for readdir only (struct ovl_dir_cache) and throws it away at each change. Here
lookups are answered from it as well: with it a name that no layer has costs no system call, and creating or
removing one needs no look at the layers first (bench: missing name, first; create+write+close). Decision
0004.

The disk is changed first and the index afterwards (`note_upper`, `note_gone`), so a call that fails leaves
the index as it was. A crash takes the index with it: the next mount lists again.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from overlayfs_py.errors import fail
from overlayfs_py.union.attr import d_type
from overlayfs_py.union.building import ONLY_UPPER, building, probe
from overlayfs_py.union.layer import Real
from overlayfs_py.union.node import UPPER, DirIndex, Entry, Node
from overlayfs_py.union.order import NameOrder
from overlayfs_py.union.stack import Stack

# Steps after which a directory is a huge one, whose names are probed until it is listed: the lookup of one
# name must not wait for a hundred thousand others (bench: list 100,000 names, first).
_AT_ONCE = 6
# Names that take more than a moment to put in order.
_MANY = 4096
_END = object()


@dataclass(frozen=True, slots=True)
class Listing:
    """An immutable snapshot of a directory: (name, st_ino, d_type) without ``.`` and ``..``.

    The cookie of an entry is its position plus one.
    """

    entries: list[tuple[bytes, int, int]]


def dir_index(stack: Stack, node: Node) -> DirIndex:
    """Return the merged names of directory `node`, listed on first use and kept with the node. ENOTDIR."""
    index = node.index or _begun(stack, node)
    if index.rest is not None:
        _advance(node, index, None)
    return index


def _begun(stack: Stack, node: Node) -> DirIndex:
    """Begin the index of a directory; that of all but huge ones is complete then."""
    if not node.is_dir:
        fail(errno.ENOTDIR)
    index = DirIndex()
    index.rest = building(stack, node, index)
    node.index = index
    _advance(node, index, _AT_ONCE)
    return index


def _advance(node: Node, index: DirIndex, steps: int | None) -> None:
    """Continue an index that is not complete, for `steps` steps or to the end.

    A part that may be searched but not listed leaves no list at all: names are probed from then on
    (`unlisted`). After any other error the index is dropped, so that the next use begins anew.
    """
    assert index.rest is not None
    try:
        for _ in islice(index.rest, steps):
            pass
        if steps is None or next(index.rest, _END) is _END:
            index.rest = None
    except PermissionError:
        index.rest = None
        index.unlisted = True
        index.other_filesystems = None
        index.entries.clear()
        index.whiteouts.clear()
    except BaseException:
        node.index = None
        raise


def work_left(stack: Stack, node: Node, *, ordered: bool) -> Iterator[None] | None:
    """What is to be done until all names of `node` are known, and `ordered`, in steps; None for what is done
    or takes no time.
    """
    index = node.index or _begun(stack, node)
    if index.rest is None and (index.order is not None or not ordered or len(index.entries) < _MANY):
        return None
    return _working(node, index, ordered=ordered)


def _working(node: Node, index: DirIndex, *, ordered: bool) -> Iterator[None]:
    while index.rest is not None:
        _advance(node, index, 1)
        yield
    if ordered and index.order is None and len(index.entries) >= _MANY:
        index.order, steps = NameOrder.begun(list(index.entries))
        yield from steps


def find_entry(stack: Stack, node: Node, name: bytes) -> Entry | None:
    """Return what directory `node` holds under `name`; no system call once the directory is listed.

    Each lookup in a huge directory does one step of its listing, besides probing its own name. So a program
    that asks for all names one by one soon has the list, and one that asks for a single name does not pay for
    it.
    """
    index = node.index or _begun(stack, node)
    if index.rest is not None:
        _advance(node, index, 1)
        return probe_entry(stack, node, name)
    if index.unlisted and name not in index.entries and name not in index.whiteouts:
        probe(stack, node, index, name)
    return index.entries.get(name)


def probe_entry(stack: Stack, node: Node, name: bytes, *, covers: bool = True) -> Entry | None:
    """What directory `node` holds under `name`, found without listing it; `covers` as for `probe`."""
    alone = DirIndex()
    probe(stack, node, alone, name, covers=covers)
    return alone.entries.get(name)


def covered(entry: Entry | None) -> bool:
    """Whether a lower layer has something under the name, so that removing it needs a whiteout.

    Positions are in the order of the layers, so the last one says it.
    """
    return entry is not None and entry[0][-1] != UPPER


def covered_part(stack: Stack, node: Node) -> Real | None:
    """Return what the lowers have under the name that `node` goes by, hidden by its upper part; None
    without.
    """
    if node.parent is None:
        return None
    positions = lower_positions(dir_index(stack, node.parent), node.name)
    return node.parent.lowers[positions[0]].child(node.name) if positions else None


def check_same_upper(stack: Stack, one: DirIndex, other: DirIndex) -> None:
    """EXDEV for two directories between which the upper's file system moves nothing: its subvolumes."""
    if one.other_filesystems is not other.other_filesystems and _upper_dev(stack, one) != _upper_dev(
        stack, other
    ):
        fail(errno.EXDEV)


def _upper_dev(stack: Stack, index: DirIndex) -> int:
    own = 0 if stack.upper is None else stack.upper.layer.dev
    return (
        index.other_filesystems[UPPER].dev
        if index.other_filesystems and UPPER in index.other_filesystems
        else own
    )


def in_upper(entry: Entry) -> bool:
    """Whether the upper holds the name itself."""
    return entry[0][0] == UPPER


def lower_positions(index: DirIndex, name: bytes) -> tuple[int, ...]:
    """Return where the lower layers have `name`, hidden by the upper or not."""
    entry = index.entries.get(name)
    if entry is None:
        return index.whiteouts.get(name, ())
    positions = entry[0]
    return positions[1:] if positions[0] == UPPER else positions


def note_upper(index: DirIndex, name: bytes, ino: int, mode: int) -> None:
    """Record that the upper now holds `name` itself (over a whiteout, a lower entry, or nothing). What the
    lowers have under it stays known: removing the name needs a whiteout for that.
    """
    positions = ONLY_UPPER + lower_positions(index, name)
    index.whiteouts.pop(name, None)
    if index.order is not None and name not in index.entries:
        index.order.add(name)
    _is_here(index, name)
    index.entries[name] = (positions, ino, d_type(mode))


def note_gone(index: DirIndex, name: bytes, *, whiteout: bool) -> None:
    """Record that `name` is gone, and whether the upper now holds a whiteout for it."""
    if whiteout:
        index.whiteouts[name] = lower_positions(index, name)
    else:
        index.whiteouts.pop(name, None)
    if index.entries.pop(name, None) is not None and index.order is not None:
        index.order.remove(name)
    _is_here(index, name)


def _is_here(index: DirIndex, name: bytes) -> None:
    """What the upper holds under `name` now is not what its listing may have found on another file system."""
    if index.other_filesystems is not None and UPPER in index.other_filesystems:
        index.other_filesystems[UPPER].numbers.pop(name, None)
