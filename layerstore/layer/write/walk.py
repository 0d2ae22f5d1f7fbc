"""Decide which entries a layer has, and their order.

A directory comes first, then its opaque marker, then the whiteouts of its names, then its children in byte
order, each directory with everything below it before the next name. So a reader that applies entries one by
one removes before it adds.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from layerstore.errors import Unrepresentable, naming
from layerstore.layer.whiteout import PREFIX, is_reserved
from layerstore.layer.write.unchanged import UnchangedFilter
from overlayfs_py.syscalls.dirents import DT_DIR, DT_REG, DT_SOCK, DT_UNKNOWN
from overlayfs_py.union.reading import Node, Reading, Real

# Finds where a metacopy file's bytes are; returns None when it is no such file any more.
FindData = Callable[[], Real | None]

_LINKED = -1  # in place of a d_type: a lower layer's name of a file that is in the upper


class EntrySink(Protocol):
    """Takes the entries of a walk: paths are those in the layer, `real` is where each entry is on disk.

    `other` takes anything but a directory, listed as the d_type `kind`; it returns False when a whiteout has
    taken the entry's place meanwhile. `gone` is called for a name that has vanished since it was listed.
    """

    def directory(self, path: bytes, real: Real) -> None: ...
    def whiteout(self, directory: bytes, name: bytes) -> None: ...
    def opaque_marker(self, directory: bytes) -> None: ...
    def other(self, path: bytes, real: Real, kind: int, find_data: FindData) -> bool: ...
    def gone(self, path: bytes) -> None: ...


class Dir:
    """A directory of the walk: its path in the layer, and what the mount shows there.

    `whole`: its children are those of the merged tree; else only the upper's, with whiteouts as entries. A
    directory that is not in the upper is only walked to reach names of upper files. One that is not `written`
    has no entry yet, and gets one when something in it needs it.
    """

    __slots__ = ("hides", "node", "parent", "path", "whole", "written")

    def __init__(self, path: bytes, parent: Dir | None, node: Node, *, whole: bool) -> None:
        self.path = path
        self.parent = parent
        self.node = node
        self.whole = whole
        self.hides = False  # it is opaque: nothing shows through from below
        self.written = True

    def child_path(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class Walk:
    """Walks a stack once and passes each entry to `sink`; lists one directory at a time.

    `exclude` and `unchanged` say what is left out.
    """

    def __init__(
        self,
        reading: Reading,
        sink: EntrySink,
        exclude: Collection[bytes] = (),
        unchanged: UnchangedFilter | None = None,
    ) -> None:
        self._reading = reading
        self._sink = sink
        self._unchanged = unchanged
        self._exclude = frozenset(path.strip(b"/") for path in exclude)
        self._linked: dict[bytes, set[bytes]] = {}

    def changes(self) -> None:
        """Walk the upper as a changeset against the lowers."""
        self._linked = linked_names(self._reading)
        self._begin(whole=False)

    def everything(self) -> None:
        """Walk the merged tree."""
        self._begin(whole=True)

    def _begin(self, *, whole: bool) -> None:
        root = self._reading.root
        self._sink.directory(b"", root.top)
        self._descend(Dir(b"", None, root, whole=whole))

    def _descend(self, top: Dir) -> None:
        # An explicit stack: a tree may be deeper than Python's recursion limit.
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
        """Return the names to visit, sorted. In a changeset, writes the whiteouts at once."""
        node = directory.node
        if directory.whole:
            with naming(directory.path):
                return iter(sorted(self._reading.names(node)))
        linked = self._linked.get(directory.path, ())
        if node.upper is None:
            return iter([(name, _LINKED) for name in sorted(linked)])
        with naming(directory.path):
            held, whiteouts = self._reading.upper_names(node)
        if linked:
            known = {*(name for name, _ in held), *whiteouts}
            held += [(name, _LINKED) for name in linked if name not in known]
        for name in sorted(whiteouts):
            if not directory.hides and not self._is_excluded(directory.child_path(name)):
                self._check_name(directory.child_path(name), name)
                self._write(directory)
                self._sink.whiteout(directory.path, name)
        held.sort()
        return iter(held)

    def _write(self, directory: Dir) -> None:
        """Write the entries of this directory and of those above it that have none yet."""
        waiting = []
        while not directory.written:
            directory.written = True
            waiting.append(directory)
            assert directory.parent is not None  # the root is always written
            directory = directory.parent
        for each in reversed(waiting):
            self._sink.directory(each.path, each.node.top)

    def _is_excluded(self, path: bytes) -> bool:
        return bool(self._exclude) and path in self._exclude

    def _check_name(self, path: bytes, name: bytes) -> None:
        if is_reserved(name):
            raise Unrepresentable(path, "its name would be a whiteout in a layer: rename or remove it")

    def _visit(self, directory: Dir, name: bytes, kind: int) -> Dir | None:
        """Write one entry; returns the directory to descend into when it is one."""
        path = directory.path + b"/" + name if directory.path else name
        if self._exclude and path in self._exclude:
            return None
        if name.startswith(PREFIX):
            self._check_name(path, name)
        if directory.whole or kind == _LINKED:
            return self._visit_merged(directory, path, name, kind)
        if kind == DT_DIR:
            return self._visit_upper_dir(directory, path, name)
        if self._unchanged is not None and self._is_unchanged(directory, path, name):
            return None
        if not directory.written:
            self._write(directory)
        if kind == DT_SOCK and self._below(directory, name, path) is not None:
            self._sink.whiteout(directory.path, name)  # what the omitted socket hides must stay hidden

        def find_data() -> Real | None:
            found = lookup(self._reading, directory.node, name, path)
            return found.data if found is not None and found.is_file else None

        # By its own name: a lookup addresses an inode in the index by its entry there.
        if not self._sink.other(path, directory.node.copied.child(name), kind, find_data):
            self._sink.whiteout(directory.path, name)
        return None

    def _is_unchanged(self, directory: Dir, path: bytes, name: bytes) -> bool:
        assert self._unchanged is not None
        below = self._below(directory, name, path)
        if below is None:
            return False
        found = lookup(self._reading, directory.node, name, path)
        return found is not None and not found.is_dir and self._unchanged.is_other(found, below)

    def _below(self, directory: Dir, name: bytes, path: bytes) -> Node | None:
        """Return what the lowers alone show under a name of `directory`."""
        if directory.hides or not directory.node.lowers:
            return None
        return lookup(self._reading, self._reading.without_upper(directory.node), name, path)

    def _visit_upper_dir(self, directory: Dir, path: bytes, name: bytes) -> Dir | None:
        node = lookup(self._reading, directory.node, name, path)
        real = directory.node.copied.child(name)
        if node is None or node.upper is None:
            if self._reading.is_whiteout(real):  # removed since it was listed
                self._sink.whiteout(directory.path, name)
            else:
                self._sink.gone(path)
            return None
        if not node.is_dir:
            raise Unrepresentable(path, "it was replaced while it was read (pause its writers)")
        marks = self._reading.marks.read_dir(node.upper)
        natural = self._below(directory, name, path)
        moved = marks.redirect is not None and not (natural is not None and _same_parts(node, natural))
        below = Dir(path, directory, node, whole=moved)
        below.hides = marks.opaque
        marked = (marks.opaque or moved) and self._hides_something(natural, opaque=marks.opaque)
        if self._unchanged is not None and not moved and not marked:
            below.written = not self._unchanged.is_directory(node.upper, natural)
        if below.written:
            self._write(directory)
            self._sink.directory(path, node.upper)
        if marked:
            self._sink.opaque_marker(path)
        return below

    def _hides_something(self, natural: Node | None, *, opaque: bool) -> bool:
        """Return whether an opaque marker is needed: the kernel marks every new directory opaque.

        Without lower layers to check, the mark is kept.
        """
        return natural is not None or (opaque and not self._reading.root.lowers)

    def _visit_merged(self, directory: Dir, path: bytes, name: bytes, kind: int) -> Dir | None:
        node = lookup(self._reading, directory.node, name, path)
        if node is None:
            self._sink.gone(path)
            return None
        self._write(directory)
        if node.is_dir:
            self._sink.directory(path, node.top)
            return Dir(path, directory, node, whole=kind != _LINKED)
        kind = DT_REG if node.is_file else DT_UNKNOWN
        self._sink.other(path, node.top, kind, lambda: node.data)
        return None


def _same_parts(node: Node, natural: Node) -> bool:
    """Return whether a directory has the lower parts of its own name: it was moved away and back."""
    places = [[(real.layer, real.layer_path()) for real in each.lowers] for each in (node, natural)]
    return natural.is_dir and places[0] == places[1]


def lookup(reading: Reading, directory: Node, name: bytes, path: bytes) -> Node | None:
    """Do `Reading.lookup`; marks that lead nowhere raise Unrepresentable, naming `path`."""
    try:
        return reading.lookup(directory, name)
    except OSError as error:
        if error.errno != errno.EIO or not error.strerror:
            with naming(path):
                raise
        raise Unrepresentable(path, error.strerror) from None


def linked_names(reading: Reading) -> dict[bytes, set[bytes]]:
    """Return, by directory, the lower layers' names of files in the upper, and the directories on the way.

    Walks the whole tree unless the index is empty.
    """
    linked: dict[bytes, set[bytes]] = {}
    pending = [(b"", reading.root)] if reading.has_linked_names else []
    while pending:
        path, directory = pending.pop()
        for name, _ in reading.names(directory):
            found = lookup(reading, directory, name, path)
            if found is None:
                continue
            below = path + b"/" + name if path else name
            if found.is_dir:
                pending.append((below, found))
            elif found.indexed:
                while below:
                    below, _, step = below.rpartition(b"/")
                    linked.setdefault(below, set()).add(step)
    return linked
