"""Two trees, entry by entry: everything an image can carry is compared, nothing is assumed."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What is compared of one path. A directory's size and link count say nothing about its content."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    device: tuple[int, int]
    target: bytes
    digest: str
    xattrs: tuple[tuple[str, bytes], ...]
    names: tuple[bytes, ...]  # all paths of one hard-linked file


KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every path under `root` (relative; the root itself is `.`), within its file system."""
    yield b".", os.lstat(root)
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in sorted(os.listdir(os.path.join(root, directory))):
            path = os.path.join(directory, name)
            found = os.lstat(os.path.join(root, path))
            yield path, found
            if stat.S_ISDIR(found.st_mode):
                pending.append(path)


def digest_of(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def xattrs_of(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def snapshot(root: str | os.PathLike[str]) -> dict[bytes, Entry]:
    """All entries of the tree below `root`."""
    base = os.fsencode(root)
    stats = dict(walk(base))
    groups: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path, found in stats.items():
        if not stat.S_ISDIR(found.st_mode):
            groups[found.st_dev, found.st_ino].append(path)
    return {path: entry_of(base, path, found, groups) for path, found in stats.items()}


def entry_of(
    base: bytes, path: bytes, found: os.stat_result, groups: dict[tuple[int, int], list[bytes]]
) -> Entry:
    full = os.path.join(base, path)
    kind = stat.S_IFMT(found.st_mode)
    special = kind in (stat.S_IFCHR, stat.S_IFBLK)
    return Entry(
        kind=KINDS[kind],
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        size=found.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0,
        device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if special else (0, 0),
        target=os.readlink(full) if kind == stat.S_IFLNK else b"",
        digest=digest_of(full) if kind == stat.S_IFREG else "",
        xattrs=xattrs_of(full),
        names=tuple(sorted(groups.get((found.st_dev, found.st_ino), ()))),
    )


def differences(
    left: dict[bytes, Entry], right: dict[bytes, Entry], *, ignore: tuple[str, ...] = ()
) -> list[str]:
    """One line for each path that is on one side only or differs in a field not in `ignore`."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        shown = os.fsdecode(path)
        if path not in right:
            lines.append(f"{shown}: only in the first ({left[path].kind})")
        elif path not in left:
            lines.append(f"{shown}: only in the second ({right[path].kind})")
        else:
            lines.extend(f"{shown}: {text}" for text in field_differences(left[path], right[path], ignore))
    return lines


def field_differences(left: Entry, right: Entry, ignore: tuple[str, ...]) -> Iterator[str]:
    for field in fields(Entry):
        a: Any = getattr(left, field.name)
        b: Any = getattr(right, field.name)
        if field.name not in ignore and a != b:
            yield f"{field.name}: {a!r} and {b!r}"
