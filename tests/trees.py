"""A directory tree as a literal: what tests put into layers, and how it is made on disk.

A tree is a mapping from paths to entries; parents that are not named are made 0755. It can hold
everything a layer can: whiteouts and opaque marks in each on-disk form, hard links, devices,
holes, xattrs, ACLs and nanosecond times.
"""

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

Xattrs = Mapping[bytes, bytes]
Path = str | bytes

# Times of entries that name none: distinct, in the past, with nanoseconds.
EPOCH_NS = 1_000_000_000_123_456_789


@dataclass(frozen=True, kw_only=True, repr=False)
class Entry:
    """What every kind of entry has. `mtime_ns` None: a time derived from the path."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: Xattrs = field(default_factory=dict)
    mtime_ns: int | None = None

    def __repr__(self) -> str:
        """Python that makes it, without the defaults: a failing stack is printed to be pasted."""
        plain = type(self)()
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        said = [f"{name}={value!r}" for name, value in named.items() if value != getattr(plain, name)]
        return f"{type(self).__name__}({', '.join(said)})"


@dataclass(frozen=True, repr=False)
class File(Entry):
    """A regular file; `holes` makes it `holes` bytes longer by a hole in front of its data."""

    data: bytes = b""
    holes: int = field(default=0, kw_only=True)


@dataclass(frozen=True, kw_only=True, repr=False)
class Dir(Entry):
    """A directory; `opaque` is "y" or "x" (contains xattr-whiteouts); `opq_file`: `.wh..wh..opq`."""

    mode: int = 0o755
    opaque: str = ""
    opq_file: bool = False


@dataclass(frozen=True, repr=False)
class Symlink(Entry):
    """A symbolic link."""

    target: Path = ""
    mode: int = field(default=0o777, kw_only=True)


@dataclass(frozen=True, repr=False)
class Link(Entry):
    """A hard link to another path of the same tree, which sorts before it or is not a Link."""

    to: Path = ""


@dataclass(frozen=True, repr=False)
class Node(Entry):
    """A fifo, socket, or device."""

    kind: int = stat.S_IFIFO
    rdev: int = field(default=0, kw_only=True)


@dataclass(frozen=True, repr=False)
class Whiteout(Entry):
    """A whiteout: `device` (char 0:0), `xattr` (overlay.whiteout on an empty file), `aufs` (.wh.NAME)."""

    form: str = "device"


Tree = Mapping[str, Entry] | Mapping[bytes, Entry] | Mapping[Path, Entry]  # a mapping's key is one type


def fifo(mode: int = 0o644, **more: object) -> Node:
    """A fifo as a literal."""
    return replace(Node(stat.S_IFIFO), mode=mode, **more)  # type: ignore[arg-type]


def socket(mode: int = 0o755) -> Node:
    """A socket as a literal."""
    return Node(stat.S_IFSOCK, mode=mode)


def char_device(major: int, minor: int, mode: int = 0o666) -> Node:
    """A character device as a literal."""
    return Node(stat.S_IFCHR, mode=mode, rdev=os.makedev(major, minor))


def block_device(major: int, minor: int, mode: int = 0o660) -> Node:
    """A block device as a literal."""
    return Node(stat.S_IFBLK, mode=mode, rdev=os.makedev(major, minor))


ACL_ACCESS, ACL_DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_ACL_TAGS = {"u": 1, "user": 2, "g": 4, "group": 8, "m": 16, "o": 32}


def acl(*entries: tuple[str, int] | tuple[str, int, int]) -> bytes:
    """A POSIX ACL as its xattr: acl(("u", 6), ("user", 1000, 4), ("g", 4), ("m", 6), ("o", 0))."""
    packed = struct.pack("<I", 2)
    for tag, *rest in sorted(entries, key=lambda entry: _ACL_TAGS[entry[0]]):
        ident, permission = (rest[0], rest[1]) if len(rest) == 2 else (0xFFFFFFFF, rest[0])
        packed += struct.pack("<HHI", _ACL_TAGS[tag], permission, ident)
    return packed


# VFS_CAP_REVISION_2 with CAP_NET_RAW permitted and effective: what setcap cap_net_raw+ep writes.
CAPABILITY = b"security.capability"
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def build(root: Path | os.PathLike[str], tree: Tree, *, prefix: bytes = b"trusted.overlay.") -> None:
    """Make `tree` inside `root`, which exists. Directory times are set last, so they hold."""
    top = os.fsencode(root)
    entries = {os.fsencode(path).strip(b"/"): entry for path, entry in tree.items()}
    for path in sorted(_with_parents(entries), key=lambda path: (isinstance(entries.get(path), Link), path)):
        entry = entries.get(path, Dir())
        _make(top, path, entry, prefix)
        if isinstance(entry, Whiteout) and entry.form == "xattr":
            _announce_xattr_whiteout(top, path, prefix)
    for path in sorted(_with_parents(entries), reverse=True):
        _set_mtime(top, path, entries.get(path, Dir()))


def _with_parents(entries: Mapping[bytes, Entry]) -> set[bytes]:
    wanted = {b""}
    for path in entries:
        while path:
            wanted.add(path)
            path = os.path.dirname(path)
    return wanted


def _on_disk(top: bytes, path: bytes, entry: Entry) -> bytes:
    """Where the entry is really made: an AUFS whiteout has another name."""
    if isinstance(entry, Whiteout) and entry.form == "aufs":
        path = os.path.join(os.path.dirname(path), b".wh." + os.path.basename(path))
    return os.path.join(top, path)


def _make(top: bytes, path: bytes, entry: Entry, prefix: bytes) -> None:
    where = _on_disk(top, path, entry)
    match entry:
        case Link():
            os.link(os.path.join(top, os.fsencode(entry.to)), where, follow_symlinks=False)
            return
        case Dir():
            if path:
                os.mkdir(where)
            if entry.opaque:
                os.setxattr(where, prefix + b"opaque", entry.opaque.encode())
            if entry.opq_file:
                _write(os.path.join(where, b".wh..wh..opq"), b"", 0)
        case File():
            _write(where, entry.data, entry.holes)
        case Symlink():
            os.symlink(os.fsencode(entry.target), where)
        case Node():
            os.mknod(where, entry.kind | 0o600, entry.rdev)
        case Whiteout(form="device"):
            os.mknod(where, stat.S_IFCHR, 0)
            return
        case Whiteout():
            _write(where, b"", 0)
            if entry.form == "xattr":
                os.setxattr(where, prefix + b"whiteout", b"y")
            return
    _dress(where, entry)


def _write(where: bytes, data: bytes, holes: int) -> None:
    fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, holes + len(data))
        os.pwrite(fd, data, holes)
    finally:
        os.close(fd)


def _dress(where: bytes, entry: Entry) -> None:
    """Owner, mode, then xattrs: chown clears setuid bits and capabilities, chmod an ACL's mask."""
    os.lchown(where, entry.uid, entry.gid)
    if not isinstance(entry, Symlink):
        os.chmod(where, entry.mode)
    for name, value in entry.xattrs.items():
        os.setxattr(where, name, value, follow_symlinks=False)


def _announce_xattr_whiteout(top: bytes, path: bytes, prefix: bytes) -> None:
    """The kernel looks for xattr whiteouts only where the layer's root and the directory say `x`."""
    for directory in {top, os.path.join(top, os.path.dirname(path))}:
        if os.fsdecode(prefix) + "opaque" not in os.listxattr(directory):
            os.setxattr(directory, prefix + b"opaque", b"x")


def _set_mtime(top: bytes, path: bytes, entry: Entry) -> None:
    where = _on_disk(top, path, entry)
    if isinstance(entry, Link):
        return
    mtime = entry.mtime_ns
    if mtime is None:
        mtime = EPOCH_NS + sum(path) * 1_000_000_007
    os.utime(where, ns=(mtime, mtime), follow_symlinks=False)
