"""Resolve the two paths of a copy inside a root directory, never outside of it, by descriptors alone.

The host's root is one such directory, the root of a workspace another. So the code is the same for both, and
a symbolic link that is swapped in meanwhile cannot lead elsewhere (CVE-2018-15664).
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

_MAX_LINKS = 40  # as in the kernel


@dataclass(frozen=True, slots=True)
class CopySide:
    """A path in a root. `shown` is the path as the user wrote it."""

    root_fd: int
    path: bytes
    shown: str

    @property
    def wants_dir(self) -> bool:
        """Whether the path must be a directory: it ends in a slash or a dot."""
        return self.path.rpartition(b"/")[2] in {b"", b".", b".."}

    @property
    def is_contents(self) -> bool:
        """Whether it means the content of a directory: ``DIR/.``, or the root itself."""
        return self.path.endswith(b"/.") or self.name in {b"", b".", b".."}

    @property
    def name(self) -> bytes:
        """The last component, empty for the root."""
        return self.path.rstrip(b"/").removesuffix(b"/.").rstrip(b"/").rpartition(b"/")[2]


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """The target of a copy: a name in an open directory; without a name, that directory itself."""

    dir_fd: int
    name: bytes


def open_source(side: CopySide, *, follow: bool) -> int:
    """Open the source of a copy; the caller owns the ``O_PATH`` descriptor. A link itself unless `follow`."""
    flags = os.O_PATH if follow or side.wants_dir else os.O_PATH | os.O_NOFOLLOW
    if side.wants_dir:
        flags |= os.O_DIRECTORY
    try:
        return as_owner.open_in_root(side.root_fd, side.path, flags)
    except OSError as error:
        raise _explained(error, side) from None


def find_target(side: CopySide, held: ExitStack, *, source: CopySide, source_is_dir: bool) -> CopyTarget:
    """Return the target of `source` by docker's rules; descriptors belong to `held`.

    In an existing directory, under its own name; else the path itself, whose parent must exist. A link at the
    end of the path is followed.
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
    """Raise LayerstoreError unless it is a directory: a tar is extracted into one."""
    fd = _open_dir(side)
    if fd is None:
        raise LayerstoreError(f"{side.shown} is not an existing directory")
    os.close(fd)


def proc_path(fd: int) -> bytes:
    """Return a path that opens the object of a descriptor again, whatever has its name now."""
    return b"/proc/self/fd/%d" % fd


def read_link(fd: int) -> bytes:
    """Return the target of the symbolic link of an ``O_PATH`` descriptor."""
    return os.readlink(b"", dir_fd=fd)


def open_again(fd: int, flags: int, path: bytes) -> int:
    """Open the object of the ``O_PATH`` descriptor `fd`; an error names `path`."""
    try:
        return as_owner.open_at(fd, b"", flags | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, error.strerror, printable(path)) from None


def open_child(dir_fd: int, name: bytes, path: bytes) -> int | None:
    """Open an entry of a directory as ``O_PATH``; None when it is gone. An error names `path`."""
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
    """Return an open directory and the name in it for a path; the last link is followed step by step."""
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
        except OSError:  # not a link: this is the target, whether it exists or not
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
