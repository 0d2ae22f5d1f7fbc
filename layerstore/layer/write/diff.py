"""List what an upper changes, or what differs between two stacks, as ``docker diff`` does.

An entry is changed when its type, mode, owner, device, xattrs or content differ, and, except for directories,
when its time differs; a directory is also listed as changed when something in it is. A removed tree is one
line. Parents come before their children, siblings in byte order. Directories that show the same layers on
both sides are not read: the cost depends on what the upper holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

from layerstore.errors import naming, printable
from layerstore.layer.compare import same_content, same_metadata, same_place
from layerstore.layer.stack import StackPaths
from layerstore.layer.write.walk import linked_names, lookup
from overlayfs_py.union.reading import Node, Reading, Real


@dataclass(frozen=True, slots=True)
class Change:
    """One line of ``diff``: A(dded), C(hanged) or D(eleted); `path` has no leading slash."""

    kind: Literal["A", "C", "D"]
    path: bytes

    def __str__(self) -> str:
        return f"{self.kind} /{printable(self.path)}"


def changes(stack: StackPaths, *, exclude: Collection[bytes] = ()) -> Iterator[Change]:
    """Yield what `stack.upper` changes in `stack.lowers`, without paths in `exclude` (no leading slash)."""
    with ExitStack() as held:
        after = held.enter_context(stack.read())
        if not stack.lowers:
            yield from _Comparison(after, after, exclude).run(after.root, None)
            return
        # Opened separately: the index of hard links belongs to the upper's side only.
        old = StackPaths(stack.lowers[0], stack.lowers[1:], stack.userxattr)
        before = held.enter_context(old.read())
        yield from _Comparison(after, before, exclude).run(after.root, before.root)


def changes_between(old: StackPaths, new: StackPaths) -> Iterator[Change]:
    """Yield the changes from the merged tree of `old` to that of `new`; shared bottom layers are not read."""
    with old.read() as before, new.read() as after:
        yield from _Comparison(after, before, ()).run(after.root, before.root)


class _Frame(NamedTuple):
    """A directory being compared. `announce` holds its own line until something in it has changed."""

    path: bytes
    new: Node
    old: Node | None
    names: Iterator[bytes]
    announce: list[Change]


class _Comparison:
    def __init__(self, new: Reading, old: Reading, exclude: Collection[bytes]) -> None:
        self._new = new
        self._old = old
        self._exclude = frozenset(path.strip(b"/") for path in exclude)
        self._linked = linked_names(new)

    def run(self, new: Node, old: Node | None) -> Iterator[Change]:
        frames = [self._frame(b"", new, old, [])]
        while frames:
            frame = frames[-1]
            name = next(frame.names, None)
            if name is None:
                frames.pop()
                continue
            path = frame.path + b"/" + name if frame.path else name
            if path in self._exclude:
                continue
            after = lookup(self._new, frame.new, name, path)
            before = None if frame.old is None else lookup(self._old, frame.old, name, path)
            line = self._line(path, after, before)
            if line is not None:
                yield from _announced(frames)
                yield line
            if after is not None and after.is_dir:
                # A directory that took the place of something else shows all its children as added.
                below = before if before is not None and before.is_dir else None
                frames.append(self._frame(path, after, below, [Change("C", path)] if line is None else []))

    def _frame(self, path: bytes, new: Node, old: Node | None, announce: list[Change]) -> _Frame:
        with naming(path):
            names = sorted({*self._names(new, old), *self._linked.get(path, ())})
        return _Frame(path, new, old, iter(names), announce)

    def _names(self, new: Node, old: Node | None) -> Collection[bytes]:
        """Return the names that may differ: if the new side has all parts of the old one at its bottom, only
        those in its other parts.
        """
        above, below = _parts(new), [] if old is None else _parts(old)
        extra = len(above) - len(below)
        if extra >= 0 and all(map(same_place, above[extra:], below)):
            return {name for part in above[:extra] for name, _ in self._new.raw_names(part)}
        found = self._new.names(new) + ([] if old is None else self._old.names(old))
        return {name for name, _ in found}

    def _line(self, path: bytes, after: Node | None, before: Node | None) -> Change | None:
        if after is None:
            return Change("D", path) if before is not None else None
        if before is None:
            return Change("A", path)
        return Change("C", path) if self._differ(after, before) else None

    def _differ(self, after: Node, before: Node) -> bool:
        if len(_parts(after)) == len(_parts(before)) == 1 and same_place(after.top, before.top):
            return False
        a, b = after.top.stat(), before.top.stat()
        if not after.is_dir and (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns):
            return True
        if not same_metadata(self._new, after.top, self._old, before.top):
            return True
        # Equal size and time usually mean a copy-up without a change.
        return not after.is_dir and not same_content(after, before)


def _parts(node: Node) -> list[Real]:
    """Return the places that a node merges, topmost first; a metacopy file's data is not one."""
    if not node.is_dir:
        return [node.top]
    return [*([node.upper] if node.upper is not None else []), *node.lowers]


def _announced(frames: list[_Frame]) -> Iterator[Change]:
    for frame in frames:
        yield from frame.announce
        frame.announce.clear()
