"""Merged directories: one listing of all parts makes the index that lookups and readdir answer from.

Lower layers do not change while mounted and the upper changes only through the mount,
so an index stays right when every change updates it.
"""

import errno
import os
import stat
from dataclasses import dataclass

from overlayfs_py.syscalls.dirents import read_dirents
from overlayfs_py.union.layer import Real, is_whiteout_device
from overlayfs_py.union.marks import AUFS_META, AUFS_WHITEOUT, takes_aufs
from overlayfs_py.union.node import UPPER, DirIndex, Elsewhere, Entry, Node
from overlayfs_py.union.stack import Stack

_DT_CHR, DT_DIR, _DT_REG = 2, 4, 8
_ONLY_UPPER = (UPPER,)

Dirent = tuple[bytes, int, int]  # name, inode number, d_type


@dataclass(frozen=True, slots=True)
class Listing:
    """An immutable snapshot of a directory: (name, st_ino, d_type) without ``.`` and ``..``.

    The cookie of an entry is its position plus one.
    """

    entries: list[tuple[bytes, int, int]]


def d_type(mode: int) -> int:
    """The DT_* value of a file mode."""
    return stat.S_IFMT(mode) >> 12


def dir_index(stack: Stack, node: Node) -> DirIndex:
    """The merged names of directory `node`, listed on first use and kept with the node."""
    index = node.index
    if index is None:
        if not node.is_dir:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            index = _build(stack, node)
        except PermissionError:
            index = DirIndex()
            index.unlisted = True
        node.index = index
    return index


def find_entry(stack: Stack, node: Node, name: bytes) -> Entry | None:
    """What directory `node` holds under `name`; no system call once the directory is listed."""
    index = node.index or dir_index(stack, node)
    if index.unlisted and name not in index.entries and name not in index.whiteouts:
        _probe(stack, node, index, name)
    return index.entries.get(name)


def _probe(stack: Stack, node: Node, index: DirIndex, name: bytes) -> None:
    """Merge one name of a directory that cannot be listed."""
    flagged = node.xattr_whiteouts
    if node.upper is not None:
        _add_upper(stack, index, node.upper, UPPER in flagged, _look(node.upper, name))
    merge = _Merge(stack, index)
    for position, real in enumerate(node.lowers):
        marks = _look(real, AUFS_WHITEOUT + name)
        if marks and not takes_aufs(real):
            marks = []
        merge.add(position, real, position in flagged, _look(real, name) + marks)


def _look(real: Real, name: bytes) -> list[Dirent]:
    try:
        st = real.child(name).stat()
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return []
        raise
    return [(name, st.st_ino, d_type(st.st_mode))]


def _build(stack: Stack, node: Node) -> DirIndex:
    index = DirIndex()
    if node.nlink == 0:
        return index  # removed: its names are gone and nothing may be made in it
    flagged = node.xattr_whiteouts
    if node.upper is not None:
        _add_upper(stack, index, node.upper, UPPER in flagged, _read(stack, index, UPPER, node.upper))
    merge = _Merge(stack, index)
    for position, real in enumerate(node.lowers):
        merge.add(position, real, position in flagged, _read(stack, index, position, real))
    return index


def _read(stack: Stack, index: DirIndex, position: int, real: Real) -> list[Dirent]:
    fd = real.open_dir()
    try:
        found = read_dirents(fd)
        dev, others = stack.spans.look(real, fd, found)
    finally:
        os.close(fd)
    if others or dev != real.layer.dev:
        numbers = {name: stack.number(real.child(name), *identity) for name, identity in others.items()}
        index.elsewhere = {**(index.elsewhere or {}), position: Elsewhere(dev, numbers)}
    return found


def _is_whiteout(stack: Stack, real: Real, name: bytes, kind: int, xattr_whiteouts: bool) -> bool:
    if kind == _DT_CHR:
        return is_whiteout_device(real.child(name).stat())
    if kind == _DT_REG and xattr_whiteouts:
        child = real.child(name)
        return child.stat().st_size == 0 and stack.marks.is_xattr_whiteout(child)
    return False


def _add_upper(stack: Stack, index: DirIndex, real: Real, xattr_whiteouts: bool, found: list[Dirent]) -> None:
    entries = index.entries
    hiding = stack.hiding
    for name, ino, kind in found:
        if hiding and name.startswith(hiding):
            continue  # removed, but open
        if (kind == _DT_CHR or xattr_whiteouts) and _is_whiteout(stack, real, name, kind, xattr_whiteouts):
            index.whiteouts[name] = ()
        else:
            entries[name] = (_ONLY_UPPER, ino, kind)


class _Merge:
    """Adds lower directories to an index, topmost first.

    A whiteout, or a non-directory under a directory, hides the name in the layers below it only.
    """

    def __init__(self, stack: Stack, index: DirIndex) -> None:
        self.stack = stack
        self.index = index
        self.hidden: set[bytes] = set(index.whiteouts)
        self.undecided: set[bytes] = set(index.whiteouts)  # does the upper's whiteout hide anything?

    def add(self, position: int, real: Real, xattr_whiteouts: bool, found: list[Dirent]) -> None:
        hides: list[bytes] = []
        here = (position,)
        entries = self.index.entries
        hidden = self.hidden
        marks: bool | None = None  # whether .wh. names are; asked when there is one
        for name, ino, kind in found:
            if name.startswith(AUFS_WHITEOUT):
                if marks is None:
                    marks = takes_aufs(real)
                if marks and name.startswith(AUFS_META):
                    continue
                if marks and kind == _DT_REG and name != AUFS_WHITEOUT:
                    hides.append(name[len(AUFS_WHITEOUT) :])
                    continue
            if name in hidden and name not in self.undecided:
                continue
            if (kind == _DT_CHR or xattr_whiteouts) and _is_whiteout(
                self.stack, real, name, kind, xattr_whiteouts
            ):
                hides.append(name)
                continue
            above = entries.get(name)
            if name in hidden:
                self.index.whiteouts[name] = here
                self.undecided.discard(name)
            elif above is None:
                entries[name] = (here, ino, kind)
            elif above[2] == DT_DIR and kind == DT_DIR:
                entries[name] = (above[0] + here, above[1], kind)
            else:
                self._cover(above, here, name)
                hides.append(name)
        hidden.update(hides)
        self.undecided.difference_update(hides)

    def _cover(self, above: Entry, here: tuple[int, ...], name: bytes) -> None:
        """Two entries that do not merge: removing an upper one must leave a whiteout for the lower."""
        if above[0] == _ONLY_UPPER:
            self.index.entries[name] = (above[0] + here, above[1], above[2])


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
    if one.elsewhere is not other.elsewhere and _upper_dev(stack, one) != _upper_dev(stack, other):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def _upper_dev(stack: Stack, index: DirIndex) -> int:
    own = 0 if stack.upper is None else stack.upper.dev
    return index.elsewhere[UPPER].dev if index.elsewhere and UPPER in index.elsewhere else own


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
    positions = _ONLY_UPPER + lower_positions(index, name)
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
    if index.elsewhere is not None and UPPER in index.elsewhere:
        index.elsewhere[UPPER].numbers.pop(name, None)
