"""Compare two directory trees, including xattrs: an unpacked layer with its blob."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from typing import Any, NamedTuple

from layerstore.errors import naming
from layerstore.layer import whiteout
from layerstore.layer.compare import same_bytes
from overlayfs_py.syscalls import as_owner

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUTS = {whiteout.namespace(user).whiteout for user in (True, False)}


class _Line(NamedTuple):
    """A path with what can be compared without reading it. The descriptor, of the directory itself or of the
    one that holds the file, is open until the next line is requested.
    """

    path: bytes
    facts: tuple[Any, ...]
    dir_fd: int
    name: bytes


def first_difference(one_fd: int, other_fd: int) -> bytes | None:
    """Return the first path, in a fixed order, at which two trees differ; None when they are equal.

    Compares names, types, modes, owners, sizes, times, devices, link targets, xattrs and contents, except
    times of directories and whiteouts: some of these have the time of their unpacking.
    """
    for one, other in zip_longest(_lines(one_fd), _lines(other_fd)):
        if one is None or other is None or not _is_same(one, other):
            return min(line.path for line in (one, other) if line is not None)
    return None


def _is_same(one: _Line, other: _Line) -> bool:
    if (one.path, one.facts) != (other.path, other.facts):
        return False
    if not stat.S_ISREG(one.facts[0]):
        return True
    with naming(one.path), ExitStack() as held:
        fds = []
        for line in (one, other):
            fds.append(as_owner.open_at(line.dir_fd, line.name, _FILE))
            held.callback(os.close, fds[-1])
        return same_bytes(*fds)


def _lines(top_fd: int) -> Iterator[_Line]:
    yield _Line(b".", _of_dir(top_fd), top_fd, b".")
    fd = os.dup(top_fd)
    levels = [(b".", _names(fd))]  # one descriptor at a time, at any depth
    try:
        while levels:
            path, names = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                if levels:
                    fd = _instead(fd, as_owner.open_beneath(top_fd, levels[-1][0], _DIR))
                continue
            below = path + b"/" + name
            with naming(below[2:]):
                status = as_owner.stat_at(fd, name)
                is_dir = stat.S_ISDIR(status.st_mode)
                if is_dir:
                    fd = _instead(fd, as_owner.open_at(fd, name, _DIR))
                    levels.append((below, _names(fd)))
                facts = _of_dir(fd) if is_dir else _of_other(fd, name, status)
            yield _Line(below[2:], facts, fd, name)
    finally:
        os.close(fd)


def _instead(old_fd: int, new_fd: int) -> int:
    os.close(old_fd)
    return new_fd


def _names(fd: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(fd))))


def _common(status: os.stat_result) -> tuple[Any, ...]:
    return status.st_mode, status.st_uid, status.st_gid


def _of_dir(fd: int) -> tuple[Any, ...]:
    return *_common(os.fstat(fd)), _xattrs(fd, b".")


def _of_other(fd: int, name: bytes, status: os.stat_result) -> tuple[Any, ...]:
    target = as_owner.readlink_at(fd, name) if stat.S_ISLNK(status.st_mode) else None
    xattrs = _xattrs(fd, name)
    is_whiteout = whiteout.is_whiteout_device(status) or not _WHITEOUTS.isdisjoint(xattrs)
    mtime_ns = None if is_whiteout else status.st_mtime_ns
    return *_common(status), mtime_ns, status.st_size, status.st_rdev, xattrs, target


def _xattrs(fd: int, name: bytes) -> dict[str, bytes]:
    return {xattr: as_owner.getxattr_at(fd, name, xattr) for xattr in as_owner.listxattr_at(fd, name)}
