"""In which order the entries of a layer come, and which there are.

A directory comes first, then its opaque marker, then the whiteouts of its names, then its children in
byte order, each directory with all below it before the next name. So a reader that applies entries one by
one removes before it adds.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from typing import Protocol

from layerstore.errors import Unrepresentable
from layerstore.layer.members import FindData
from layerstore.layer.merged import Look, Merged, Part
from layerstore.layer.unchanged import Unchanged
from layerstore.layer.whiteout import PREFIX, is_reserved
from overlayfs_py.syscalls.dirents import DT_DIR, DT_REG, DT_SOCK, DT_UNKNOWN

_LINKED = -1  # instead of a d_type: a name of a lower layer that stands for a file of the upper


class Entries(Protocol):
    """Who takes the entries: paths are those in the layer, parts say where they come from."""

    def directory(self, path: bytes, part: Part) -> None: ...
    def whiteout(self, directory: bytes, name: bytes) -> None: ...
    def opaque_marker(self, directory: bytes) -> None: ...
    def other(self, path: bytes, part: Part, kind: int, find_data: FindData) -> bool: ...
    def gone(self, path: bytes) -> None: ...


class Dir:
    """A directory on the way: its path in the layer and the parts its children come from.

    `whole`: children are those of the merged tree; else only the upper's, with whiteouts as entries. A
    directory that is not in the upper has no parts, and is only passed through to names that stand for an
    upper file. One that is not `written` has no entry yet, and gets one when something in it needs it.
    """

    __slots__ = ("_lowers", "hides", "parent", "parts", "path", "whole", "written")

    def __init__(self, path: bytes, parent: Dir | None, parts: tuple[Part, ...], *, whole: bool) -> None:
        self.path = path
        self.parent = parent
        self.parts = parts
        self.whole = whole
        self.hides = False  # it is opaque: nothing shows through from below
        self.written = True
        self._lowers: tuple[Part, ...] | None = None

    def passing(self, lowers: tuple[Part, ...]) -> Dir:
        """This directory with its lower parts known."""
        self._lowers = lowers
        return self

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    def child_path(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name

    def lowers(self, merged: Merged) -> tuple[Part, ...]:
        """What lies below the upper's part: found when first asked for, as most directories never ask."""
        if self.whole:
            return self.parts[1:]
        if self._lowers is None:
            if self.parent is None:
                self._lowers = merged.root[1:]
            elif self.hides:
                self._lowers = ()
            else:
                found = merged.lookup(self.parent.lowers(merged), self.name)
                is_dir = found is not None and stat.S_ISDIR(found.st.st_mode)
                self._lowers = found.parts if found is not None and is_dir else ()
        return self._lowers


class Walk:
    """Walks a stack once and hands each entry to `members`; directories are listed one at a time.

    With `unchanged`, what it finds to be so in the upper is left out.
    """

    def __init__(
        self,
        merged: Merged,
        members: Entries,
        exclude: Collection[bytes] = (),
        unchanged: Unchanged | None = None,
    ) -> None:
        self._merged = merged
        self._members = members
        self._unchanged = unchanged
        self._exclude = frozenset(path.strip(b"/") for path in exclude)
        self._linked: dict[bytes, set[bytes]] = {}

    def changes(self) -> None:
        """The upper, as a changeset against the lowers."""
        self._linked = self._merged.linked_names()
        self._members.directory(b"", self._merged.root[0])
        self._descend(Dir(b"", None, self._merged.root[:1], whole=False))

    def everything(self) -> None:
        """The merged tree."""
        self._members.directory(b"", self._merged.root[0])
        self._descend(Dir(b"", None, self._merged.root, whole=True))

    def _descend(self, top: Dir) -> None:
        # An explicit stack: a tree may be deeper than Python's.
        pending: list[tuple[Dir, Iterator[tuple[bytes, int]]]] = [(top, self._children(top))]
        while pending:
            directory, names = pending[-1]
            for name, kind in names:
                below = self._visit(directory, name, kind)
                if below is not None:
                    pending.append((below, self._children(below)))
                    break
            else:
                pending.pop()

    def _children(self, directory: Dir) -> Iterator[tuple[bytes, int]]:
        """The names to visit, sorted; of a changeset, the whiteouts are written at once."""
        if directory.whole:
            return iter(sorted(self._merged.names(directory.parts).items()))
        linked = self._linked.get(directory.path, ())
        if not directory.parts:
            return iter([(name, _LINKED) for name in sorted(linked)])
        (part,) = directory.parts
        listed = self._merged.list(part)
        if linked:
            known = {name for name, _ in listed}
            listed += [(name, _LINKED) for name in linked if name not in known]
        listed.sort()
        marked = self._merged.has_xattr_whiteouts(part)
        shown = []
        for name, kind in listed:
            if not self._merged.is_whiteout(part, name, kind, marked):
                shown.append((name, kind))
            elif not directory.hides and not self._is_excluded(directory.child_path(name)):
                self._check_name(directory.child_path(name), name)
                self._write(directory)
                self._members.whiteout(directory.path, name)
        return iter(shown)

    def _write(self, directory: Dir) -> None:
        """Write the entries of this directory and of those above it that have none yet."""
        waiting = []
        while not directory.written:
            directory.written = True
            waiting.append(directory)
            assert directory.parent is not None  # the root is always written
            directory = directory.parent
        for each in reversed(waiting):
            self._members.directory(each.path, each.parts[0])

    def _is_excluded(self, path: bytes) -> bool:
        return bool(self._exclude) and path in self._exclude

    def _check_name(self, path: bytes, name: bytes) -> None:
        if is_reserved(name):
            raise Unrepresentable(path, "a layer would take its name for a whiteout: rename or remove it")

    def _visit(self, directory: Dir, name: bytes, kind: int) -> Dir | None:
        """Write one entry; the directory to go on with when it is one."""
        path = directory.path + b"/" + name if directory.path else name
        if self._exclude and path in self._exclude:
            return None
        if name.startswith(PREFIX):
            self._check_name(path, name)
        if directory.whole:
            return self._visit_merged(directory, directory.parts, path, name, kind)
        if kind == _LINKED:
            return self._visit_merged(directory, directory.lowers(self._merged), path, name, kind)
        part = Part(directory.parts[0].layer, path)  # the upper's own path, as it is not moved
        if kind == DT_DIR:
            return self._visit_upper_dir(directory, path, part)
        lowers = directory.lowers
        if self._unchanged is not None and self._unchanged.is_other(part, lowers(self._merged)):
            return None
        if not directory.written:
            self._write(directory)
        if kind == DT_SOCK and self._merged.lookup(lowers(self._merged), name) is not None:
            self._members.whiteout(directory.path, name)  # left out, it must not bring back what it hides
        find_data = lambda look: self._merged.data(part, look, lowers(self._merged))  # noqa: E731 (once a file)
        if not self._members.other(path, part, kind, find_data):
            self._members.whiteout(directory.path, name)
        return None

    def _visit_upper_dir(self, directory: Dir, path: bytes, part: Part) -> Dir | None:
        look = self._merged.look(part)
        if look is None:
            self._members.gone(path)
            return None
        if look.whiteout:  # removed since it was listed
            self._members.whiteout(directory.path, part.path.rpartition(b"/")[2])
            return None
        if not stat.S_ISDIR(look.st.st_mode):
            raise Unrepresentable(path, "it was replaced while it was read (pause its writers)")
        moved = None if look.redirect is None else self._moved(directory, part, look.redirect)
        below = Dir(path, directory, (part, *(moved or ())), whole=moved is not None)
        below.hides = look.opaque
        marked = (look.opaque or moved is not None) and self._hides_something(directory, look, part)
        if self._unchanged is not None and moved is None and not marked:
            below.written = not self._unchanged.is_directory(part, look, directory.lowers(self._merged))
        if below.written:
            self._write(directory)
            self._members.directory(path, part)
        if marked:
            self._members.opaque_marker(path)
        return below

    def _moved(self, directory: Dir, part: Part, redirect: bytes) -> tuple[Part, ...] | None:
        """The lower parts of a redirected directory; None when it was moved away and is back again."""
        lowers = directory.lowers(self._merged)
        moved = self._merged.below(part, redirect, lowers)
        found = self._merged.lookup(lowers, part.path.rpartition(b"/")[2])
        return None if found is not None and found.parts == moved else moved

    def _hides_something(self, directory: Dir, look: Look, part: Part) -> bool:
        """Whether an opaque marker is needed: the kernel marks every new directory opaque, just in case.

        Without lower layers to look into, the mark is believed.
        """
        if len(self._merged.root) == 1:
            return look.opaque
        name = part.path.rpartition(b"/")[2]
        return self._merged.lookup(directory.lowers(self._merged), name) is not None

    def _visit_merged(
        self, directory: Dir, parts: tuple[Part, ...], path: bytes, name: bytes, kind: int
    ) -> Dir | None:
        found = self._merged.lookup(parts, name)
        if found is None:
            self._members.gone(path)
            return None
        self._write(directory)
        if stat.S_ISDIR(found.st.st_mode):
            self._members.directory(path, found.parts[0])
            if kind == _LINKED:
                return Dir(path, directory, (), whole=False).passing(found.parts)
            return Dir(path, directory, found.parts, whole=True)
        data = found.data
        kind = DT_REG if stat.S_ISREG(found.st.st_mode) else DT_UNKNOWN
        self._members.other(path, found.parts[0], kind, lambda _look: data)
        return None
