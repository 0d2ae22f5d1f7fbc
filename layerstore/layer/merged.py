"""Read a stack of directories in kernel overlayfs's format as one tree: no mount, no writing, no cached
contents.

A `Part` is a place in one layer; a merged directory is the parts that show through it, topmost first.
Lookups follow fs/overlayfs/namei.c: a whiteout or a non-directory stops, an opaque directory ends the
stack, a redirect continues below under another name, and a metacopy file takes its data from further
down. Every directory is opened beneath its layer's root without following a symlink, so a workspace that
changes meanwhile cannot lead out of itself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from layerstore.errors import Unrepresentable
from layerstore.layer import whiteout
from layerstore.layer.linkindex import LinkIndex
from layerstore.layer.stack import Stack
from overlayfs_py.syscalls import dirents, openat

_O_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRS = 64
_NO_XATTR = (errno.ENOTSUP, errno.ENODATA)


class Part(NamedTuple):
    """A place in one layer: its index in the stack (0 is the upper) and the path below the layer's root."""

    layer: int
    path: bytes

    def child(self, name: bytes) -> Part:
        return Part(self.layer, self.path + b"/" + name if self.path else name)


class Look(NamedTuple):
    """One name in one layer, and the marks on it."""

    st: os.stat_result
    whiteout: bool = False
    opaque: bool = False
    redirect: bytes | None = None
    metacopy: bool = False


class Found(NamedTuple):
    """One name of the merged tree. A directory has all its parts; anything else one, and `data` for a
    file's bytes.
    """

    parts: tuple[Part, ...]
    st: os.stat_result
    data: Part | None = None


class Merged:
    """An open stack. Owns the roots' descriptors and a few of directories; close it, or use it in a
    with statement.
    """

    def __init__(self, stack: Stack) -> None:
        self.marks = whiteout.namespace(stack.userxattr)
        self._roots: list[int] = []
        self._identities: list[tuple[int, int]] = []
        self._dirs: dict[tuple[int, bytes], int] = {}
        self._index: LinkIndex | None = None
        try:
            for path in (stack.upper, *stack.lowers):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._roots.append(fd)
                st = os.fstat(fd)
                self._identities.append((st.st_dev, st.st_ino))
            self.root = tuple(Part(layer, b"") for layer in range(len(self._roots)))
            if stack.work is not None:
                self._open_index(stack.work)
        except BaseException:
            self.close()
            raise

    def _open_index(self, work: bytes) -> None:
        """The index becomes one more layer, below all others, that only indexed files are found in."""
        self._index = LinkIndex(work, self.marks, self._identities[0][0])
        if self._index:
            self._roots.append(self._index.fd)
            self._identities.append((-1, -1))

    @property
    def has_index(self) -> bool:
        """Whether some names of lower layers stand for files of the upper."""
        return bool(self._index)

    def __enter__(self) -> Merged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        for fd in (*self._dirs.values(), *self._roots):
            if self._index is None or fd != self._index.fd:
                os.close(fd)
        if self._index is not None:
            self._index.close()
        self._dirs.clear()
        self._roots.clear()

    def identity(self, part: Part) -> tuple[tuple[int, int], bytes]:
        """The same for a place in the same layer directory of another stack."""
        return self._identities[part.layer], part.path

    def dir_fd(self, part: Part) -> int:
        """A descriptor of this directory, owned by the stack and good until some dozens of others were
        asked for.
        """
        fd = self._dirs.get(part)
        if fd is not None:
            return fd
        if not part.path:
            return self._roots[part.layer]
        if len(self._dirs) >= _OPEN_DIRS:
            os.close(self._dirs.pop(next(iter(self._dirs))))
        try:
            fd = openat.open_beneath(self._roots[part.layer], part.path, _O_DIR)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise Unrepresentable(part.path, "its path is longer than the system allows") from None
            raise
        self._dirs[part] = fd
        return fd

    def at(self, part: Part) -> tuple[int, bytes]:
        """(descriptor of its directory, name) for the calls that take both; a root is ``.`` in itself."""
        if not part.path:
            return self._roots[part.layer], b"."
        parent, _, name = part.path.rpartition(b"/")
        fd = self._dirs.get((part.layer, parent))  # a Part is this tuple, and takes longer to make
        return self.dir_fd(Part(part.layer, parent)) if fd is None else fd, name

    def stat(self, part: Part) -> os.stat_result:
        dir_fd, name = self.at(part)
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def xattrs(self, part: Part) -> list[str]:
        """The names of all xattrs, of the place itself; none where the file system has none."""
        try:
            return os.listxattr(self._proc_path(part), follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_XATTR:
                return []
            raise

    def xattr(self, part: Part, name: str) -> bytes:
        return os.getxattr(self._proc_path(part), name, follow_symlinks=False)

    def _proc_path(self, part: Part) -> bytes:
        # There is no listxattrat before Linux 6.13; the descriptor keeps this from being a walk.
        return b"/proc/self/fd/%d/%s" % self.at(part)

    def look(self, part: Part) -> Look | None:
        """What is at this place; None for nothing."""
        try:
            st = self.stat(part)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(st.st_mode):
            return self._look_dir(part, st)
        if stat.S_ISREG(st.st_mode):
            return self._look_file(part, st)
        return Look(st, whiteout=whiteout.is_whiteout_device(st))

    def _look_dir(self, part: Part, st: os.stat_result) -> Look:
        names = self.xattrs(part)
        opaque = self.marks.opaque in names and self.xattr(part, self.marks.opaque) == b"y"
        return Look(st, opaque=opaque, redirect=None if opaque else self._redirect(part, names))

    def _look_file(self, part: Part, st: os.stat_result) -> Look:
        names = self.xattrs(part)
        if st.st_size == 0 and self.marks.whiteout in names:
            return Look(st, whiteout=True)
        if self.marks.metacopy not in names:
            return Look(st)
        return Look(st, redirect=self._redirect(part, names), metacopy=True)

    def _redirect(self, part: Part, names: Sequence[str]) -> bytes | None:
        if self.marks.redirect not in names:
            return None
        redirect = self.xattr(part, self.marks.redirect)
        inner = redirect[1:] if redirect.startswith(b"/") else redirect
        if any(step in (b"", b".", b"..") for step in inner.split(b"/")) or (
            inner is redirect and b"/" in inner
        ):
            raise Unrepresentable(part.path, f"its redirect {redirect!r} makes no sense")
        return redirect

    def lookup(self, parents: Sequence[Part], name: bytes) -> Found | None:
        """`name` in the merged directory `parents`; None when there is nothing, or a whiteout."""
        found: list[Part] = []
        top: os.stat_result | None = None
        for index, parent in enumerate(parents):
            part = parent.child(name)
            look = self.look(part)
            if look is None:
                continue
            if look.whiteout:
                break
            if not stat.S_ISDIR(look.st.st_mode):
                if found:
                    break
                return self._indexed(Found((part,), look.st, self.data(part, look, parents[index + 1 :])))
            found.append(part)
            top = top or look.st
            if look.opaque:
                break
            if look.redirect is not None:
                found += self.below(part, look.redirect, parents[index + 1 :])
                break
        return Found(tuple(found), top) if top is not None else None

    def _indexed(self, found: Found) -> Found:
        """A file of a lower layer, or what it became when another of its names was written to."""
        (part,) = found.parts
        if not self._index or part.layer == 0 or found.st.st_nlink < 2:
            return found
        entry = self._index.find(self._roots[part.layer], part.path, *self.at(part), found.st)
        if entry is None:
            return found
        copy = Part(len(self.root), entry)
        look = self.look(copy)
        if look is None or stat.S_IFMT(look.st.st_mode) != stat.S_IFMT(found.st.st_mode):
            return found  # a stale entry, which the kernel ignores as well
        return Found((copy,), look.st, found.data if look.metacopy else copy)

    def below(self, part: Part, redirect: bytes, parents: Sequence[Part]) -> tuple[Part, ...]:
        """The parts of a redirected directory below `part`, whose parent continues with `parents`."""
        found = self._follow(part.layer, redirect, parents)
        return found.parts if found is not None and stat.S_ISDIR(found.st.st_mode) else ()

    def data(self, part: Part, look: Look, parents: Sequence[Part]) -> Part | None:
        """Where the bytes of the file at `part` are; None for what has no bytes."""
        if not stat.S_ISREG(look.st.st_mode):
            return None
        if not look.metacopy:
            return part
        found = self._follow(part.layer, look.redirect or os.path.basename(part.path), parents)
        if found is None or found.data is None:
            raise Unrepresentable(
                part.path, "it is a metadata-only copy, and its data is not in the lower layers"
            )
        return found.data

    def _follow(self, layer: int, redirect: bytes, parents: Sequence[Part]) -> Found | None:
        if not redirect.startswith(b"/"):
            return self.lookup(parents, redirect)
        return self.resolve(self.root[layer + 1 :], redirect[1:])

    def resolve(self, root: Sequence[Part], path: bytes) -> Found | None:
        """The entry at `path` of the tree merged from `root`; no symlink is followed."""
        parts = tuple(root)
        steps = path.split(b"/")
        for step in steps[:-1]:
            found = self.lookup(parts, step)
            if found is None or not stat.S_ISDIR(found.st.st_mode):
                return None
            parts = found.parts
        return self.lookup(parts, steps[-1])

    def names(self, parts: Sequence[Part]) -> dict[bytes, int]:
        """All visible names of a merged directory, with the d_type of the topmost."""
        seen: dict[bytes, int] = {}
        hidden: set[bytes] = set()
        for part in parts:
            marked = self.has_xattr_whiteouts(part)
            for name, kind in self.list(part):
                if name in seen or name in hidden:
                    continue
                if self.is_whiteout(part, name, kind, marked):
                    hidden.add(name)
                else:
                    seen[name] = kind
        return seen

    def list(self, part: Part) -> list[tuple[bytes, int]]:
        """(name, d_type) of everything in one directory of one layer, whiteouts included; DT_UNKNOWN is
        resolved.
        """
        return [(name, kind) for name, _, kind in dirents.read_dirents(self.dir_fd(part))]

    def is_whiteout(self, part: Part, name: bytes, kind: int, marked: bool) -> bool:
        """Whether the listed entry hides its name; `marked` says that empty files may. Others are not
        looked at.
        """
        if kind != dirents.DT_CHR and not (marked and kind == dirents.DT_REG):
            return False
        look = self.look(part.child(name))
        return look is not None and look.whiteout

    def has_xattr_whiteouts(self, part: Part) -> bool:
        """Whether this directory says that it holds whiteouts that are empty files."""
        names = self.xattrs(part)
        return self.marks.opaque in names and self.xattr(part, self.marks.opaque) == b"x"

    def linked_names(self) -> dict[bytes, set[bytes]]:
        """The names of lower layers that stand for files of the upper, by directory, with the directories
        that lead to them. Walks the whole tree, unless the index says that there are none.
        """
        linked: dict[bytes, set[bytes]] = {}
        pending = [(b"", self.root)] if self._index else []
        while pending:
            path, parts = pending.pop()
            for name in self.names(parts):
                found = self.lookup(parts, name)
                if found is None:
                    continue
                below = path + b"/" + name if path else name
                if stat.S_ISDIR(found.st.st_mode):
                    pending.append((below, found.parts))
                elif found.parts[0].layer == len(self.root):
                    while below:
                        below, _, step = below.rpartition(b"/")
                        linked.setdefault(below, set()).add(step)
        return linked
