"""Put single members of a layer tar into the tree being unpacked.

A member replaces what an earlier one put under its name. Whiteouts apply to the layers below, whatever their
order in the tar: beside an entry of this layer they only mean that nothing shows through it from below.

Some entries made here are no members and only stand for what the layers below have: a directory that holds
nothing but whiteouts, a file that a hard link names. A whiteout of such a stand-in hides both. A stand-in
becomes the layer's own as soon as a member is placed in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import TypeVar

from layerstore.errors import InvalidLayer, printable
from layerstore.layer import whiteout
from layerstore.layer.notes import Notes
from layerstore.layer.tar.entry import (
    CHAR_DEVICE,
    DIRECTORY,
    HARD_LINK,
    MODE_OF_SPECIAL,
    REGULAR,
    SYMLINK,
    Entry,
)
from layerstore.layer.unpack.attributes import Attributes, AttributeSetter, check_numbers, first_mode
from layerstore.layer.unpack.filling import fill
from layerstore.layer.unpack.lowers import LowerTree
from layerstore.layer.unpack.rootdir import NotADirectory, RootDir, clean_path, remove
from layerstore.limits import Limits
from overlayfs_py.errors import fail
from overlayfs_py.union.marks import Marks
from overlayfs_py.union.reading import Node

_O_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_MAJOR, _MOST_MINOR = 0xFFF, 0xFFFFF

_Made = TypeVar("_Made")
Data = Callable[[Entry], Iterator[memoryview]]


class Placer:
    """Places entries below `root_fd`, which stays the caller's; `finish` completes directories. Close it."""

    def __init__(
        self,
        root_fd: int,
        marks: Marks,
        setter: AttributeSetter,
        below: LowerTree,
        notes: Notes,
        limits: Limits,
    ) -> None:
        self._marks = marks
        self._setter = setter
        self._below = below
        self._notes = notes
        self._limits = limits
        self._mtime_ns = 0  # of the current entry; implied parents get it
        self._stand_ins: set[bytes] = set()  # some may be gone again
        self._opaque: set[bytes] = set()  # directories that nothing shows through; they stay opaque
        self._root = RootDir(root_fd, self._missing)

    def close(self) -> None:
        self._root.close()

    def put(self, entry: Entry, data: Data) -> None:
        """Place one member. Raises InvalidLayer, naming it, for what is forbidden or impossible."""
        path = clean_path(entry.name, self._limits)
        check_numbers(entry)
        self._mtime_ns = entry.mtime_ns
        if not path:
            self._put_root(entry)
            return
        parent, _, name = path.rpartition(b"/")
        if whiteout.has_reserved(parent):
            self._refuse_or_skip(entry, path)
        elif whiteout.is_reserved(name):
            self._put_whiteout(entry, parent, name)
        else:
            try:
                dir_fd, parent = self._root.directory(parent)
                path = parent + b"/" + name if parent else name
                self._put_at(dir_fd, name, path, entry, data)
                self._own(path)
            except NotADirectory as error:
                raise InvalidLayer(f"/{printable(error.what)} is not a directory", entry.name) from None

    def _put_root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise InvalidLayer("the root is not a directory", entry.name)
        self._setter.set_later(b"", self._setter.of(entry))

    def _put_at(self, dir_fd: int, name: bytes, path: bytes, entry: Entry, data: Data) -> None:
        kind = entry.kind
        if kind == REGULAR:
            self._put_file(dir_fd, name, path, entry, data)
        elif kind == DIRECTORY:
            self._put_directory(dir_fd, name, path, entry)
        elif kind == SYMLINK:
            self._put_symlink(dir_fd, name, path, entry)
        elif kind == HARD_LINK:
            self._put_link(dir_fd, name, path, entry)
        else:
            self._put_special(dir_fd, name, path, entry)

    def _put_file(self, dir_fd: int, name: bytes, path: bytes, entry: Entry, data: Data) -> None:
        wanted = self._setter.of(entry)
        fd = self._create(dir_fd, path, partial(os.open, name, _O_NEW, first_mode(wanted), dir_fd=dir_fd))
        try:
            fill(fd, entry, data(entry))
            self._setter.set_file(fd, wanted, path)
        finally:
            os.close(fd)

    def _create(self, dir_fd: int, path: bytes, make: Callable[[], _Made]) -> _Made:
        """Call `make`; if the name exists, remove what an earlier member put there first."""
        try:
            return make()
        except FileExistsError:
            self._remove(dir_fd, path)
            return make()

    def _remove(self, dir_fd: int, path: bytes) -> None:
        self._root.forget(path)
        remove(dir_fd, path.rpartition(b"/")[2])

    def _put_directory(self, dir_fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        wanted = self._setter.of(entry)
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if not stat.S_ISDIR(st.st_mode):
                self._remove(dir_fd, path)
                os.mkdir(name, 0o700, dir_fd=dir_fd)
                self._make_opaque(dir_fd, name, path)  # the removed entry had replaced what lies below
        self._setter.set_later(path, wanted)

    def _make_opaque(self, dir_fd: int, name: bytes, path: bytes) -> None:
        os.setxattr(b"/proc/self/fd/%d/%s" % (dir_fd, name), self._marks.opaque, b"y", follow_symlinks=False)
        self._opaque.add(path)

    def _missing(
        self, dir_fd: int, name: bytes, path: bytes, make: bool, replaces_whiteout: bool
    ) -> bytes | None:
        """Make a directory that the tar does not mention, with the attributes that the layers below have.

        Returns the target when the layers below have a symlink there. See `RootDir` for the parameters.
        """
        found = None if replaces_whiteout else self._find_below(path)
        if found is not None and found.is_symlink:
            return found.top.readlink()
        shown = found if found is not None and found.is_dir else None
        if shown is None and not make and not self._below.is_empty:
            fail(errno.ENOENT)
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        if replaces_whiteout:
            self._make_opaque(dir_fd, name, path)
        self._setter.set_later(path, self._plain() if shown is None else self._below.attributes(shown))
        if make:
            self._own(path)
        else:
            self._stand_ins.add(path)
        return None

    def _plain(self) -> Attributes:
        return Attributes(0o755, 0, 0, self._mtime_ns, {})

    def _find_below(self, path: bytes) -> Node | None:
        """Return what shows at `path` from the layers below; None below an opaque directory of this layer."""
        return None if self._is_hidden(path) else self._below.find(path)

    def _is_hidden(self, path: bytes) -> bool:
        return bool(self._opaque) and any(above in self._opaque for above in _above(path))

    def _own(self, path: bytes) -> None:
        """Make what is at `path`, and the directories above it, the layer's own instead of stand-ins."""
        if self._stand_ins:
            self._stand_ins.discard(path)
            for above in _above(path):
                if above not in self._stand_ins:
                    break  # and so are all directories above it
                self._stand_ins.remove(above)
                if self._is_hidden(above):  # what it stood for is hidden now
                    self._setter.set_later(above, self._plain())

    def _put_symlink(self, dir_fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        target = entry.linkname
        if not target or b"\0" in target or len(target) > self._limits.max_name:
            raise InvalidLayer("a symlink with an impossible target", entry.name)
        wanted = self._setter.of(entry)
        self._create(dir_fd, path, partial(os.symlink, target, name, dir_fd=dir_fd))
        self._setter.set_special(dir_fd, name, wanted, path, symlink=True)

    def _put_special(self, dir_fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        major, minor = entry.device
        if not (0 <= major <= _MOST_MAJOR and 0 <= minor <= _MOST_MINOR):
            raise InvalidLayer(f"an impossible device number {major}:{minor}", entry.name)
        device = os.makedev(major, minor)
        if entry.kind == CHAR_DEVICE and device == whiteout.WHITEOUT_DEVICE:
            raise InvalidLayer("a character device 0:0, which overlays read as a whiteout", entry.name)
        wanted = self._setter.of(entry)
        mode = MODE_OF_SPECIAL[entry.kind] | 0o600
        try:
            self._create(dir_fd, path, partial(os.mknod, name, mode, device, dir_fd=dir_fd))
        except PermissionError:
            self._notes.add(f"left out the device /{printable(path)}: it needs privilege")
            return
        self._setter.set_special(dir_fd, name, wanted, path, symlink=False)

    def _put_link(self, dir_fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        target = clean_path(entry.linkname or b".", self._limits, entry.name)
        parent, _, last = target.rpartition(b"/")
        with ExitStack() as held:
            here = _held(held, dir_fd)
            try:
                target_fd, parent = self._root.directory(parent, make=False)
            except (FileNotFoundError, NotADirectory):
                raise _no_target(entry) from None
            found = parent + b"/" + last if parent else last
            if found in self._stand_ins and self._is_hidden(found):
                raise _no_target(entry)
            try:
                st = os.stat(last, dir_fd=target_fd, follow_symlinks=False)
            except FileNotFoundError:
                st = self._fetch(target_fd, last, found, entry)
            if stat.S_ISDIR(st.st_mode) or whiteout.is_whiteout_device(st):
                raise InvalidLayer(
                    f"a hard link to /{printable(target)}, a directory or a whiteout", entry.name
                )
            if found != path:
                self._link(_held(held, target_fd), last, here, name, path, entry)

    def _link(self, target_fd: int, last: bytes, here: int, name: bytes, path: bytes, entry: Entry) -> None:
        make = partial(os.link, last, name, src_dir_fd=target_fd, dst_dir_fd=here, follow_symlinks=False)
        try:
            self._create(here, path, make)
        except FileNotFoundError:
            raise InvalidLayer("a hard link that replaces its own target", entry.name) from None

    def _fetch(self, dir_fd: int, name: bytes, path: bytes, entry: Entry) -> os.stat_result:
        """Copy what a hard link names from the layers below into this layer."""
        found = self._find_below(path)
        if found is None or found.is_dir:
            raise _no_target(entry)
        if not found.is_file:
            return self._fetch_special(dir_fd, name, path, found)
        fd = os.open(name, _O_NEW, 0o600, dir_fd=dir_fd)
        try:
            self._below.copy(found, fd)
            self._setter.set_file(fd, self._below.attributes(found), path)
            self._stand_ins.add(path)
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _fetch_special(self, dir_fd: int, name: bytes, path: bytes, found: Node) -> os.stat_result:
        """Make a symlink, fifo or device like the one below; without privilege a device raises EPERM."""
        if found.is_symlink:
            os.symlink(found.top.readlink(), name, dir_fd=dir_fd)
        else:
            os.mknod(name, found.kind | 0o600, found.top.stat().st_rdev, dir_fd=dir_fd)
        wanted = self._below.attributes(found)
        self._setter.set_special(dir_fd, name, wanted, path, symlink=found.is_symlink)
        self._stand_ins.add(path)
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def _refuse_or_skip(self, entry: Entry, path: bytes) -> None:
        if any(whiteout.is_metadata(step) for step in path.split(b"/")):
            self._notes.add(f"left out /{printable(path)}: AUFS's own file")
            return
        raise InvalidLayer("an entry below a whiteout", entry.name)

    def _put_whiteout(self, entry: Entry, parent: bytes, name: bytes) -> None:
        """Apply a whiteout or an opaque marker; below a path that is no directory (umoci) ignore it."""
        hidden = None if name == whiteout.OPAQUE_MARKER else whiteout.hidden_name(name, entry.name)
        if hidden is not None and whiteout.is_reserved(hidden):
            self._notes.add(f"left out /{printable(entry.name)}: AUFS's own file")
            return
        try:
            dir_fd, parent = self._root.directory(parent, make=False)
        except (NotADirectory, FileNotFoundError):
            return
        if hidden is not None:
            self._hide(dir_fd, hidden, parent + b"/" + hidden if parent else hidden)
        elif parent:
            self._make_opaque(dir_fd, b".", parent)
        else:
            self._opaque.add(b"")

    def _hide(self, dir_fd: int, name: bytes, path: bytes) -> None:
        if path in self._stand_ins:
            self._remove_stand_in(path)
        try:
            os.mknod(name, stat.S_IFCHR, whiteout.WHITEOUT_DEVICE, dir_fd=dir_fd)
        except FileExistsError:
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                self._make_opaque(dir_fd, name, path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise InvalidLayer("a name that is too long", name[:300]) from None

    def finish(self) -> None:
        """Do what depends on the last member.

        Removes stand-ins for what an opaque directory hides, applies an opaque root, sets the directories'
        attributes.
        """
        for path in [path for path in self._stand_ins if self._is_hidden(path)]:
            self._remove_stand_in(path)
        if b"" in self._opaque:
            # Overlays ignore the mark on a root, so each name of the root below gets a whiteout.
            for name in self._below.root_names():
                self._hide(self._root.fd, name, name)
        self._setter.set_directories(self._root.fd)

    def _remove_stand_in(self, path: bytes) -> None:
        """Remove a stand-in, if it and its directory still exist."""
        self._stand_ins.remove(path)
        dir_fd = self._root.existing(path.rpartition(b"/")[0])
        if dir_fd is not None:
            with suppress(FileNotFoundError):
                self._remove(dir_fd, path)


def _above(path: bytes) -> Iterator[bytes]:
    """Yield the directories that `path` is in, up to the root."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _no_target(entry: Entry) -> InvalidLayer:
    what = printable(entry.linkname)
    return InvalidLayer(f"a hard link to /{what}, which does not exist", entry.name)


def _held(held: ExitStack, fd: int) -> int:
    """Return a duplicate of `fd` that `held` closes: the root's cache may close its own at any time."""
    own = os.dup(fd)
    held.callback(os.close, own)
    return own
