"""Whether two directory trees are the same, to the last xattr: an unpacked layer against its blob."""

import os
import stat
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import xxhash

from layerstore.layer import whiteout
from overlayfs_py.syscalls.openat import open_beneath

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_WHITEOUTS = {whiteout.namespace(user).whiteout for user in (True, False)}

_Line = tuple[bytes, tuple[Any, ...]]


def first_difference(one_fd: int, other_fd: int) -> bytes | None:
    """The first path, in a fixed order, at which two trees differ; None when they are equal.

    Compared are names, types, modes, owners, sizes, times, devices, link targets, xattrs and contents; but
    no times of directories and whiteouts, as some have the time of their unpacking.
    """
    for one, other in zip_longest(_lines(one_fd), _lines(other_fd)):
        if one != other:
            return min(line[0] for line in (one, other) if line is not None)
    return None


def _lines(top_fd: int) -> Iterator[_Line]:
    yield b".", _of_dir(top_fd)
    fd = os.dup(top_fd)
    levels = [(b".", _names(fd))]  # one descriptor at a time, however deep it goes
    try:
        while levels:
            path, names = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                if levels:
                    fd = _instead(fd, open_beneath(top_fd, levels[-1][0], _DIR))
                continue
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            below = path + b"/" + name
            if stat.S_ISDIR(status.st_mode):
                fd = _instead(fd, os.open(name, _DIR, dir_fd=fd))
                levels.append((below, _names(fd)))
                yield below[2:], _of_dir(fd)
            else:
                yield below[2:], _of_other(fd, name, status)
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
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = _fingerprint(fd, name)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(name, dir_fd=fd)
    xattrs = _xattrs(fd, name)
    is_whiteout = whiteout.is_whiteout_device(status) or not _WHITEOUTS.isdisjoint(xattrs)
    mtime_ns = None if is_whiteout else status.st_mtime_ns
    return *_common(status), mtime_ns, status.st_size, status.st_rdev, xattrs, content


def _xattrs(fd: int, name: bytes) -> dict[str, bytes]:
    path = b"/proc/self/fd/%d/%s" % (fd, name)
    names = os.listxattr(path, follow_symlinks=False)
    return {xattr: os.getxattr(path, xattr, follow_symlinks=False) for xattr in names}


def _fingerprint(dir_fd: int, name: bytes) -> bytes:
    hasher = xxhash.xxh3_128()
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    with open(fd, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            hasher.update(data)
    return hasher.digest()
