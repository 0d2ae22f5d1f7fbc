"""Merged directories: one listing of all parts makes the index that lookups and readdir answer from.

Lower layers do not change while mounted and the upper changes only through the mount,
so an index stays right when every change updates it.
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

# Steps after which a directory is a huge one, whose names are probed until it is listed.
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
    """The merged names of directory `node`, listed on first use and kept with the node."""
    index = node.index or _begun(stack, node)
    if index.rest is not None:
        _advance(node, index, None)
    return index


def _begun(stack: Stack, node: Node) -> DirIndex:
    """The index of a directory; that of a huge one is only begun."""
    if not node.is_dir:
        fail(errno.ENOTDIR)
    index = DirIndex()
    index.rest = building(stack, node, index)
    node.index = index
    _advance(node, index, _AT_ONCE)
    return index


def _advance(node: Node, index: DirIndex, steps: int | None) -> None:
    """Go on with what is not complete, so many steps or to the end. What may not be listed is complete."""
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
    """What directory `node` holds under `name`; no system call once the directory is listed."""
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
    """Whether a lower layer has something under the name, so that removing it needs a whiteout."""
    return entry is not None and entry[0][-1] != UPPER


def covered_part(stack: Stack, node: Node) -> Real | None:
    """What the lowers have under the name that `node` goes by, hidden by its upper part; None without."""
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
    """Where the lower layers have `name`, hidden by the upper or not."""
    entry = index.entries.get(name)
    if entry is None:
        return index.whiteouts.get(name, ())
    positions = entry[0]
    return positions[1:] if positions[0] == UPPER else positions


def note_upper(index: DirIndex, name: bytes, ino: int, mode: int) -> None:
    """Record that the upper now holds `name` itself (over a whiteout, a lower entry, or nothing)."""
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
