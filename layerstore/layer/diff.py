"""What changed between a stack and what lies below it, or between two stacks, as ``docker diff`` says it.

An entry is changed when its type, mode, owner, device, xattrs or content differ, or, but for directories,
its time; a directory is also listed as changed when something in it is. A removed tree is one line.
Parents come before their children, siblings in byte order. Directories that show the same layers on both
sides are not read: the cost is that of what the upper holds.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

from layerstore.errors import printable
from layerstore.layer.compare import same_content, same_metadata, same_place
from layerstore.layer.merged import Found, Merged, Part
from layerstore.layer.stack import Stack


@dataclass(frozen=True, slots=True)
class Change:
    """One line of ``diff``: A(dded), C(hanged) or D(eleted); `path` is relative to the root, no leading
    slash.
    """

    kind: Literal["A", "C", "D"]
    path: bytes

    def __str__(self) -> str:
        return f"{self.kind} /{printable(self.path)}"


def changes(stack: Stack, *, exclude: Collection[bytes] = ()) -> Iterator[Change]:
    """What `stack.upper` changes in `stack.lowers`; paths in `exclude` (no leading slash) are passed over."""
    with ExitStack() as held:
        after = held.enter_context(Merged(stack))
        if not stack.lowers:
            yield from _Comparison(after, after, exclude).run(after.root, ())
            return
        # Opened for itself: the index of hard links belongs to the upper's side alone.
        old = Stack(stack.lowers[0], stack.lowers[1:], stack.userxattr)
        before = held.enter_context(Merged(old))
        yield from _Comparison(after, before, exclude).run(after.root, before.root)


def changes_between(old: Stack, new: Stack) -> Iterator[Change]:
    """What to do to the merged tree of `old` to get that of `new`; layers they share at the bottom are
    not read.
    """
    with Merged(old) as before, Merged(new) as after:
        yield from _Comparison(after, before, ()).run(after.root, before.root)


class _Frame(NamedTuple):
    """A directory being compared. `announce` holds its own line until it is known to be needed."""

    path: bytes
    new: tuple[Part, ...]
    old: tuple[Part, ...]
    names: Iterator[bytes]
    announce: list[Change]


class _Comparison:
    def __init__(self, new: Merged, old: Merged, exclude: Collection[bytes]) -> None:
        self._new = new
        self._old = old
        self._exclude = frozenset(path.strip(b"/") for path in exclude)
        self._linked = new.linked_names()

    def run(self, new: tuple[Part, ...], old: tuple[Part, ...]) -> Iterator[Change]:
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
            after = self._new.lookup(frame.new, name)
            before = self._old.lookup(frame.old, name) if frame.old else None
            line = self._line(path, after, before)
            if line is not None:
                yield from _announced(frames)
                yield line
            if after is not None and stat.S_ISDIR(after.st.st_mode):
                # A directory that took the place of something else shows all its children as added.
                below = before.parts if before is not None and stat.S_ISDIR(before.st.st_mode) else ()
                frames.append(
                    self._frame(path, after.parts, below, [Change("C", path)] if line is None else [])
                )

    def _frame(
        self, path: bytes, new: tuple[Part, ...], old: tuple[Part, ...], announce: list[Change]
    ) -> _Frame:
        return _Frame(
            path, new, old, iter(sorted({*self._names(new, old), *self._linked.get(path, ())})), announce
        )

    def _names(self, new: tuple[Part, ...], old: tuple[Part, ...]) -> Collection[bytes]:
        """The names that may differ: those in the parts that only the new side has, if it has the old
        ones below.
        """
        extra = len(new) - len(old)
        if extra >= 0 and all(map(self._same, new[extra:], old)):
            return {name for part in new[:extra] for name, _ in self._new.list(part)}
        return self._new.names(new).keys() | self._old.names(old).keys()

    def _same(self, new: Part, old: Part) -> bool:
        return same_place(self._new, new, self._old, old)

    def _line(self, path: bytes, after: Found | None, before: Found | None) -> Change | None:
        if after is None:
            return Change("D", path) if before is not None else None
        if before is None:
            return Change("A", path)
        return Change("C", path) if self._differ(after, before) else None

    def _differ(self, after: Found, before: Found) -> bool:
        if self._same(after.parts[0], before.parts[0]) and len(after.parts) == len(before.parts) == 1:
            return False
        a, b = after.st, before.st
        is_dir = stat.S_ISDIR(a.st_mode)
        if not is_dir and (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns):
            return True
        if not same_metadata(self._new, after, self._old, before):
            return True
        # Same size and time is what a copy-up without a change looks like, and little else.
        return not is_dir and not same_content(self._new, after, self._old, before)


def _announced(frames: list[_Frame]) -> Iterator[Change]:
    for frame in frames:
        yield from frame.announce
        frame.announce.clear()
