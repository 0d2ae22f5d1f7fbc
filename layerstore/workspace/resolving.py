"""Paths of the two sides of a copy: resolved inside a root directory, never out of it, by descriptors alone.

The host's root is one such directory, what a workspace shows is another; so there is one way for both, and a
symbolic link that somebody swaps in the middle leads nowhere else (CVE-2018-15664).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass

from layerstore.errors import LayerstoreError, NotFound, printable
from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.openat import open_in_root

_MAX_LINKS = 40  # as the kernel


@dataclass(frozen=True, slots=True)
class CopySide:
    """A path in a root. `shown` is the path as the user wrote it."""

    root_fd: int
    path: bytes
    shown: str

    @property
    def wants_dir(self) -> bool:
        """Whether the path only makes sense for a directory: it ends in a slash or a dot."""
        return self.path.rpartition(b"/")[2] in {b"", b".", b".."}

    @property
    def is_contents(self) -> bool:
        """Whether it means what is in a directory: ``DIR/.``, or the root itself."""
        return self.path.endswith(b"/.") or self.name in {b"", b".", b".."}

    @property
    def name(self) -> bytes:
        """The last component, empty for the root."""
        return self.path.rstrip(b"/").removesuffix(b"/.").rstrip(b"/").rpartition(b"/")[2]


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """Where a copy goes: a name in an open directory; no name: into that directory itself."""

    dir_fd: int
    name: bytes


def open_source(side: CopySide, *, follow: bool) -> int:
    """An ``O_PATH`` descriptor, the caller's, of what is to be copied: a link itself unless `follow`."""
    flags = os.O_PATH if follow or side.wants_dir else os.O_PATH | os.O_NOFOLLOW
    if side.wants_dir:
        flags |= os.O_DIRECTORY
    try:
        return as_owner.open_in_root(side.root_fd, side.path, flags)
    except OSError as error:
        raise _explained(error, side) from None


def find_target(side: CopySide, held: ExitStack, *, source: CopySide, source_is_dir: bool) -> CopyTarget:
    """Where `source` goes by docker's rules; descriptors belong to `held`.

    Into an existing directory, under its own name; else to the path itself, whose parent must exist. A link
    at the end of the path is followed.
    """
    into = _open_dir(side)
    if into is not None:
        held.callback(os.close, into)
        return CopyTarget(into, b"" if source_is_dir and source.is_contents else source.name)
    parent_fd, name = _parent_of(side)
    held.callback(os.close, parent_fd)
    old = _lstat(parent_fd, name)
    if old is None and side.wants_dir and not source_is_dir:
        raise LayerstoreError(f"{side.shown}: the directory does not exist")
    if old is not None and (side.wants_dir or source_is_dir):
        raise LayerstoreError(f"{side.shown} is not a directory")
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise LayerstoreError(f"{side.shown} is neither a directory nor a regular file")
    return CopyTarget(parent_fd, name)


def check_directory(side: CopySide) -> None:
    """Refuse what is no directory: a tar can only be put into one."""
    fd = _open_dir(side)
    if fd is None:
        raise LayerstoreError(f"{side.shown} is not an existing directory")
    os.close(fd)


def proc_path(fd: int) -> bytes:
    """A descriptor as a path: opens the very object again, whatever its name leads to now."""
    return b"/proc/self/fd/%d" % fd


def read_link(fd: int) -> bytes:
    """The target of the symbolic link that an ``O_PATH`` descriptor is of."""
    return os.readlink(b"", dir_fd=fd)


def open_again(fd: int, flags: int, path: bytes) -> int:
    """Open what the ``O_PATH`` descriptor `fd` is of; an error names `path`."""
    try:
        return as_owner.open_at(fd, b"", flags | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, printable(path)) from None


def open_child(dir_fd: int, name: bytes, path: bytes) -> int | None:
    """An ``O_PATH`` descriptor of something in a directory; None when it has gone. An error names `path`."""
    try:
        return as_owner.open_at(dir_fd, name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror, printable(path)) from None


def _open_dir(side: CopySide) -> int | None:
    try:
        return open_in_root(side.root_fd, side.path or b".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise _explained(error, side) from None


def _parent_of(side: CopySide) -> tuple[int, bytes]:
    """An open directory and the name in it that the path means; the last link is followed by hand."""
    path = side.path.rstrip(b"/").removesuffix(b"/.").rstrip(b"/")
    for _ in range(_MAX_LINKS):
        above, _, name = path.rpartition(b"/")
        if name in {b"", b".", b".."}:
            break
        try:
            fd = open_in_root(side.root_fd, above or b"/", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _explained(error, side) from None
        try:
            target = os.readlink(name, dir_fd=fd)
        except OSError:  # no link: it is the place, be there something or not
            return fd, name
        os.close(fd)
        path = (target if target.startswith(b"/") else above + b"/" + target).rstrip(b"/")
    raise LayerstoreError(f"{side.shown}: no such directory")


def _lstat(dir_fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _explained(error: OSError, side: CopySide) -> Exception:
    if error.errno == errno.ENOENT:
        return NotFound(f"{printable(os.fsencode(side.shown))}: no such file or directory")
    return LayerstoreError(f"{printable(os.fsencode(side.shown))}: {error.strerror}")
