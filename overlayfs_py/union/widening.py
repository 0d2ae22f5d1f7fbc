"""Widening modes that keep even their owner out, for a daemon that is an ordinary user (no CAP_DAC_OVERRIDE).

The kernel has checked what the caller may do. What the daemon then does for it needs more: to put copies
and whiteouts into a directory of mode 0555, to move one to another place, to mark it. So when an operation
is denied, the modes in its way are widened for the owner alone, it is tried again, and they are given back.
A crash in between leaves them wider, for their owner.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import attrs
from overlayfs_py.union.attr import AttrChanges
from overlayfs_py.union.layer import O_INODE, Real
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack

Result = TypeVar("Result")


def denies_owner(stack: Stack, mode: int) -> bool:
    """Whether a directory of this mode would keep the daemon from changing it, or from moving it: rename(2)
    of a directory to another one writes its `..`.
    """
    return stack.confined and mode & stat.S_IRWXU != stat.S_IRWXU


class _Widened:
    """Upper parts with their modes as they were, by descriptors, as their names may change.

    Only the owner's bits are added: for everyone else nothing changes, at no moment. `give_back` runs
    whatever happens, in the reverse order, so that each directory can still be reached.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._held: dict[tuple[int, int], tuple[int, int]] = {}

    def widen(self, node: Node) -> bool:
        """Widen the modes of `node` and of the directories above it; False: none was in the way."""
        if node.index is not None and node.index.unlisted:
            node.index = None  # it is listed again
        chain: list[Real] = []
        above: Node | None = node
        while above is not None:
            if above.upper is not None:
                chain.append(above.upper)
            above = above.parent
        return sum(self._widen(real) for real in reversed(chain)) > 0

    def _widen(self, real: Real) -> bool:
        st = real.stat()
        wanted = st.st_mode | (0o700 if stat.S_ISDIR(st.st_mode) else 0o600)
        if stat.S_ISLNK(st.st_mode) or wanted == st.st_mode or st.st_uid != self._stack.euid:
            return False
        parent_fd, name = real.at()
        fd = os.open(name, O_INODE, dir_fd=parent_fd) if name else os.dup(parent_fd)
        try:
            attrs.set_mode(fd, b"", wanted)
        except BaseException:
            os.close(fd)
            raise
        self._held[st.st_dev, st.st_ino] = fd, st.st_mode
        return True

    def widen_all(self, args: tuple[object, ...]) -> bool:
        """Widen the nodes among an operation's arguments, and the entry that a name after a node stands
        for.
        """
        count = 0
        for position, node in enumerate(args):
            if not isinstance(node, Node):
                continue
            count += self.widen(node)
            name = args[position + 1] if position + 1 < len(args) else None
            if not isinstance(name, bytes):
                continue
            child = node.children.get(name) if node.children else None
            if child is not None:
                count += self.widen(child)
            elif node.is_dir and node.upper is not None:
                with contextlib.suppress(FileNotFoundError):
                    count += self._widen(node.upper.child(name))
        return count > 0

    def keep(self, node: object) -> None:
        """The operation itself has set the mode of `node`."""
        assert isinstance(node, Node)
        st = node.top.stat()
        fd, _ = self._held.pop((st.st_dev, st.st_ino), (-1, 0))
        if fd >= 0:
            os.close(fd)

    def give_back(self) -> None:
        for fd, mode in reversed(self._held.values()):
            try:
                attrs.set_mode(fd, b"", stat.S_IMODE(mode))
            finally:
                os.close(fd)
        self._held.clear()


@contextlib.contextmanager
def widened(stack: Stack, node: Node) -> Iterator[None]:
    """Within, `node`'s upper part and those above it may be changed."""
    if not stack.confined:
        yield
        return
    modes = _Widened(stack)
    try:
        modes.widen(node)
        yield
    finally:
        modes.give_back()


def retry_widened(overlay: object, stack: Stack, operations: Iterable[str]) -> None:
    """Make `operations` of this overlay try again with wider modes when they are denied (EACCES)."""
    for name in operations:
        setattr(overlay, name, _insisting(stack, getattr(overlay, name)))


def _insisting(stack: Stack, operation: Callable[..., Result]) -> Callable[..., Result]:
    def insistent(*args: object, **options: object) -> Result:
        try:
            return operation(*args, **options)
        except PermissionError as error:
            if error.errno != errno.EACCES:
                raise
        modes = _Widened(stack)
        try:
            # As often as something was in the way: a directory may have been copied up by the last try.
            while modes.widen_all(args):
                try:
                    result = operation(*args, **options)
                    break
                except PermissionError as error:
                    if error.errno != errno.EACCES:
                        raise
            else:
                fail(errno.EACCES)
            if any(isinstance(changes, AttrChanges) and changes.mode is not None for changes in args):
                modes.keep(args[0])
            return result
        finally:
            modes.give_back()

    return insistent
