"""What a tree looks like through system calls, entry by entry, and how two of them differ.

A snapshot is taken through a `Reader`, so that a mount, a plain directory and the union without a
mount are looked at by the same eyes.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tests import rawcalls


class Dirent(NamedTuple):
    """One entry as readdir gives it."""

    name: bytes
    ino: int
    d_type: int


class Status(NamedTuple):
    """The part of struct stat that an overlay answers for; atime, ctime and blocks are left out."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    mtime_ns: int


class Reader(Protocol):
    """What a snapshot needs of a tree; paths are relative to its root, b"" is the root."""

    def scan(self, path: bytes) -> list[Dirent]: ...
    def status(self, path: bytes) -> Status: ...
    def target(self, path: bytes) -> bytes: ...
    def content(self, path: bytes) -> bytes: ...
    def xattrs(self, path: bytes) -> dict[bytes, bytes]: ...


@dataclass(frozen=True)
class DirReader:
    """Reads a directory of the machine: a mount or a plain one."""

    root: bytes

    def _at(self, path: bytes) -> bytes:
        return os.path.join(self.root, path) if path else self.root

    def scan(self, path: bytes) -> list[Dirent]:
        fd = os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            return [Dirent(name, ino, d_type) for name, ino, d_type, _ in rawcalls.list_dir(fd)]
        finally:
            os.close(fd)

    def status(self, path: bytes) -> Status:
        return status_of(os.lstat(self._at(path)))

    def target(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    def content(self, path: bytes) -> bytes:
        with open(self._at(path), "rb") as stream:
            return stream.read()

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        where = self._at(path)
        names = [os.fsencode(name) for name in os.listxattr(where, follow_symlinks=False)]
        return {name: os.getxattr(where, name, follow_symlinks=False) for name in names}


def status_of(st: os.stat_result) -> Status:
    """struct stat, cut down."""
    return Status(
        st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_rdev, st.st_mtime_ns
    )


@dataclass(frozen=True)
class Seen:
    """One entry of a snapshot; `error` is set instead when it could not be looked at."""

    status: Status
    target: bytes = b""
    sha: str = ""
    xattrs: Mapping[bytes, bytes] | None = None
    links: tuple[bytes, ...] = ()  # every path with the same inode number, when there are several
    d_type_right: bool = True
    d_ino_right: bool = True
    error: str = ""

    def facts(self) -> dict[str, object]:
        """The entry as named facts, for comparing and printing."""
        st = self.status
        return {
            "type": stat.filemode(st.mode)[0],
            "mode": oct(stat.S_IMODE(st.mode)),
            "nlink": st.nlink,
            "uid": st.uid,
            "gid": st.gid,
            "size": st.size,
            "rdev": st.rdev,
            "mtime": st.mtime_ns,
            "target": self.target,
            "content": self.sha,
            "xattrs": dict(self.xattrs or {}),
            "links": self.links,
            "d_type right": self.d_type_right,
            "d_ino right": self.d_ino_right,
            "error": self.error,
        }


Snapshot = dict[bytes, Seen]
Facts = dict[str, object]

_NO_STATUS = Status(0, 0, 0, 0, 0, 0, 0, 0)


def take(reader: Reader) -> Snapshot:
    """Look at every entry below the reader's root, the root itself included as b""."""
    seen: Snapshot = {b"": _look(reader, b"", None)}
    for path, dirent in _walk(reader, b"", seen):
        seen[path] = _look(reader, path, dirent)
    groups: dict[int, list[bytes]] = {}
    for path, entry in seen.items():
        groups.setdefault(entry.status.ino, []).append(path)
    return {
        path: _with_links(entry, tuple(sorted(groups[entry.status.ino])))
        for path, entry in sorted(seen.items())
    }


def directory(path: str | bytes | os.PathLike[str]) -> Snapshot:
    """A snapshot of a directory of the machine."""
    return take(DirReader(os.fsencode(path)))


def _with_links(entry: Seen, group: tuple[bytes, ...]) -> Seen:
    if len(group) == 1 or entry.error:
        return entry
    return Seen(**{**entry.__dict__, "links": group})


def _walk(reader: Reader, path: bytes, seen: Snapshot) -> Iterator[tuple[bytes, Dirent]]:
    """Depth first; a directory is entered when its own entry says it is one."""
    try:
        dirents = sorted(reader.scan(path))
    except OSError as error:
        seen[path] = Seen(seen[path].status, error=f"readdir: {rawcalls.errno_name(error)}")
        return
    names = [dirent.name for dirent in dirents]
    if len(set(names)) != len(names):
        seen[path] = Seen(seen[path].status, error=f"readdir: names twice in {names}")
    for dirent in dirents:
        child = os.path.join(path, dirent.name) if path else dirent.name
        yield child, dirent
        if child in seen and stat.S_ISDIR(seen[child].status.mode):
            yield from _walk(reader, child, seen)


def _look(reader: Reader, path: bytes, dirent: Dirent | None) -> Seen:
    try:
        status = reader.status(path)
    except OSError as error:
        return Seen(_NO_STATUS, error=f"lstat: {rawcalls.errno_name(error)}")
    try:
        return Seen(
            status,
            target=reader.target(path) if stat.S_ISLNK(status.mode) else b"",
            sha=_digest(reader.content(path)) if stat.S_ISREG(status.mode) else "",
            xattrs=reader.xattrs(path),
            d_type_right=dirent is None or dirent.d_type == stat.S_IFMT(status.mode) >> 12,
            d_ino_right=dirent is None or dirent.ino == status.ino,
        )
    except OSError as error:
        return Seen(status, error=f"read: {rawcalls.errno_name(error)}")


def _digest(data: bytes) -> str:
    """Short content as itself, longer as its hash: a failing comparison should be readable."""
    if len(data) <= 40:
        return repr(data)
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


def facts(snapshot: Snapshot) -> dict[bytes, Facts]:
    """A snapshot as comparable facts."""
    return {path: entry.facts() for path, entry in snapshot.items()}


def differences(
    left: Mapping[bytes, Facts], right: Mapping[bytes, Facts], names: tuple[str, str] = ("left", "right")
) -> list[str]:
    """One line for each thing that differs; empty when the two agree."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        ours, theirs = left.get(path), right.get(path)
        if ours is None or theirs is None:
            only = names[1] if ours is None else names[0]
            lines.append(f"{path!r}: only in {only}")
            continue
        lines += [
            f"{path!r} {fact}: {names[0]} {ours[fact]!r}, {names[1]} {theirs[fact]!r}"
            for fact in ours
            if ours[fact] != theirs[fact]
        ]
    return lines
