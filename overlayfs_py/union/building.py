"""Making a directory's index: the names of all its parts merged, a buffer of them at a time.

`building` is an iterator: after each step the engine may serve other requests, so a listing of a hundred
thousand names keeps none of them waiting (bench: list 100,000 names, first). `probe` merges a single name by
the same rules, for lookups that come before the list is complete and for directories that cannot be listed.

The rules are those of ovl_dir_read_merged (fs/overlayfs/readdir.c). The upper comes first: its names are
taken as they are, its whiteouts noted. Then each lower, topmost first: a name that is hidden is skipped, a
whiteout hides the name from the next layer on, a directory under a directory becomes a further part of it,
and anything else under a name that is taken hides what is below it.
"""

import errno
import os
from collections.abc import Iterator

from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.dirents import DT_CHR, DT_DIR, DT_REG, dirents_in_parts
from overlayfs_py.union.attr import d_type
from overlayfs_py.union.layer import Real, is_whiteout_device
from overlayfs_py.union.marks import AUFS_META, AUFS_WHITEOUT, takes_aufs
from overlayfs_py.union.node import UPPER, DirIndex, Entry, Node, OtherFilesystem
from overlayfs_py.union.stack import Stack

ONLY_UPPER = (UPPER,)
# Names that take a millisecond; and how many take as long as opening a directory.
_STEP, _OPENING = 500, 8

Dirent = tuple[bytes, int, int]  # name, inode number, d_type


def probe(stack: Stack, node: Node, index: DirIndex, name: bytes, *, covers: bool = True) -> None:
    """Merge one name of a directory that is not listed. Without `covers` what the topmost entry hides is not
    looked for, as a reader needs only what shows.
    """
    flagged = node.xattr_whiteouts
    if node.upper is not None:
        _add_upper(stack, index, node.upper, UPPER in flagged, _look(node.upper, name))
    merge = _Merge(stack, index)
    for position, real in enumerate(node.lowers):
        if not covers and (name in merge.hidden or _is_final(index.entries.get(name))):
            break
        marks = _look(real, AUFS_WHITEOUT + name) if real.layer.aufs != "off" else []
        if marks and not takes_aufs(real):
            marks = []
        merge.add(position, real, position in flagged, _look(real, name) + marks)
        merge.end_part()


def _is_final(entry: Entry | None) -> bool:
    """Whether nothing below can belong to it: it is no directory."""
    return entry is not None and entry[2] != DT_DIR


def _look(real: Real, name: bytes) -> list[Dirent]:
    try:
        st = as_owner.stat_at(real.dir_fd(), name)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return []
        raise
    return [(name, st.st_ino, d_type(st.st_mode))]


def building(stack: Stack, node: Node, index: DirIndex) -> Iterator[None]:
    """Fill `index` with all names of `node`. Until it is exhausted the index is not usable: a name that is in
    it may still be hidden, and one that is not may still come.
    """
    if node.nlink == 0:
        return  # removed: its names are gone and nothing may be made in it
    flagged = node.xattr_whiteouts
    effort = 0
    if node.upper is not None:
        for found in _parts(stack, index, UPPER, node.upper):
            _add_upper(stack, index, node.upper, UPPER in flagged, found)
            effort += len(found)
            if effort > _STEP:
                effort = 0
                yield
    merge = _Merge(stack, index)
    for position, real in enumerate(node.lowers):
        for found in _parts(stack, index, position, real):
            merge.add(position, real, position in flagged, found)
            effort += len(found) + _OPENING
            if effort > _STEP:
                effort = 0
                yield
        merge.end_part()


def _parts(stack: Stack, index: DirIndex, position: int, real: Real) -> Iterator[list[Dirent]]:
    """Yield the names of one part, and note in `index` which of them are on other file systems: their d_ino
    is not their st_ino.
    """
    fd = real.open_dir()
    try:
        for found in dirents_in_parts(fd):
            dev, others = stack.boundaries.examine(real, fd, found)
            if others or dev != real.layer.dev:
                numbers = {
                    name: stack.number(real.child(name), *identity) for name, identity in others.items()
                }
                if index.other_filesystems is None:
                    index.other_filesystems = {}
                index.other_filesystems.setdefault(position, OtherFilesystem(dev, {})).numbers.update(numbers)
            yield found
    finally:
        os.close(fd)


# A listing tells types, so only character devices are looked at to find whiteouts, and regular files only
# where the directory says that it holds xattr whiteouts (bench: list 10,000 names, first).
def _is_whiteout(stack: Stack, real: Real, name: bytes, kind: int, xattr_whiteouts: bool) -> bool:
    if kind == DT_CHR:
        return is_whiteout_device(real.child(name).stat())
    if kind == DT_REG and xattr_whiteouts:
        child = real.child(name)
        return child.stat().st_size == 0 and stack.marks.is_xattr_whiteout(child)
    return False


def _add_upper(stack: Stack, index: DirIndex, real: Real, xattr_whiteouts: bool, found: list[Dirent]) -> None:
    entries = index.entries
    silly_rename_prefix = stack.require_upper().silly_rename_prefix
    for name, ino, kind in found:
        if silly_rename_prefix and name.startswith(silly_rename_prefix):
            continue  # removed, but open
        if (kind == DT_CHR or xattr_whiteouts) and _is_whiteout(stack, real, name, kind, xattr_whiteouts):
            index.whiteouts[name] = ()
        else:
            entries[name] = (ONLY_UPPER, ino, kind)


class _Merge:
    """Adds lower directories to an index, topmost first.

    A whiteout, or a non-directory under a directory, hides the name in the layers below it only. In an AUFS
    layer the whiteout of a name may stand beside the name itself: so what a part hides takes effect when the
    part ends (`end_part`), whatever the order of its names.

    `undecided`: names under a whiteout of the upper for which no lower entry was found yet. One that is found
    is noted with the whiteout, since a directory made there must then be opaque.
    """

    def __init__(self, stack: Stack, index: DirIndex) -> None:
        self.stack = stack
        self.index = index
        self.hidden: set[bytes] = set(index.whiteouts)
        self.undecided: set[bytes] = set(index.whiteouts)  # does the upper's whiteout hide anything?
        self.hides: list[bytes] = []  # what this part hides in the parts below it

    def add(self, position: int, real: Real, xattr_whiteouts: bool, found: list[Dirent]) -> None:
        hides = self.hides
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
                if marks and kind == DT_REG and name != AUFS_WHITEOUT:
                    hides.append(name[len(AUFS_WHITEOUT) :])
                    continue
            if name in hidden and name not in self.undecided:
                continue
            if (kind == DT_CHR or xattr_whiteouts) and _is_whiteout(
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

    def end_part(self) -> None:
        """The next names are those of the part below."""
        self.hidden.update(self.hides)
        self.undecided.difference_update(self.hides)
        self.hides.clear()

    def _cover(self, above: Entry, here: tuple[int, ...], name: bytes) -> None:
        """Two entries that do not merge: removing an upper one must leave a whiteout for the lower."""
        if above[0] == ONLY_UPPER:
            self.index.entries[name] = (above[0] + here, above[1], above[2])
