"""Parse the kernel's messages, and pack answers. No I/O; attributes are plain tuples.

For any bytes, `parse` returns a request or raises `MalformedMessage`.
"""

import errno
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.wire import Op

_BILLION = 1_000_000_000
_HEADER_SIZE = wire.IN_HEADER.size
_NO_NAMES = frozenset((b"", b".", b".."))
_unpack_header = wire.IN_HEADER.unpack_from
_row = wire.OPS.get
_pack_attr = wire.ATTR.pack
_pack_entry = wire.ENTRY_HEAD.pack
_pack_dirent = wire.DIRENT.pack
# Padding by the size of a name modulo the alignment (benchmarks: list 10,000 names, first).
_PADDING = tuple(bytes(-size % wire.DIRENT_ALIGNMENT) for size in range(wire.DIRENT_ALIGNMENT))

# What `Overlay.getattr` returns: ino mode nlink uid gid rdev size blocks blksize atime_ns mtime_ns ctime_ns.
Attributes = tuple[int, ...]
Buffer = bytearray | bytes | memoryview


class MalformedMessage(Exception):
    """Not a message of the protocol. `unique` and `code`: the answer to send; `unique` 0: none."""

    def __init__(self, text: str, unique: int = 0, code: int = errno.EINVAL) -> None:
        super().__init__(text)
        self.unique = unique
        self.code = code


class Request(NamedTuple):
    """One message. `arguments`: the fields of the row's struct, then strings, then the payload.

    A payload is a view of the message's buffer, valid until the buffer is reused.
    """

    op: Op
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    arguments: tuple[Any, ...]

    def __repr__(self) -> str:
        shown = ", ".join(repr(bytes(a[:64]) if isinstance(a, memoryview) else a) for a in self.arguments)
        return f"{self.op.name} #{self.unique} node {self.nodeid} uid {self.uid} ({shown})"


# A named tuple's own constructor is Python code; this one is C (benchmarks: stat, first).
_request: Callable[[tuple[Any, ...]], Request] = functools.partial(tuple.__new__, Request)


def parse(buffer: bytearray | bytes, length: int) -> Request:
    """Parse the message in the first `length` bytes of `buffer`; MalformedMessage."""
    if length < _HEADER_SIZE:
        raise MalformedMessage(f"a message of {length} bytes is too short")
    size, opcode, unique, nodeid, uid, gid, pid, extensions, _ = _unpack_header(buffer)
    if size != length:
        raise MalformedMessage(f"the header says {size} bytes, the message has {length}", unique)
    op = _row(opcode)
    if op is None:
        raise MalformedMessage(f"unknown opcode {opcode}", unique, errno.ENOSYS)
    end = length - extensions * 8
    at = op.strings_at
    if at > end:
        raise MalformedMessage(f"{op.name} is cut off", unique if op.answered else 0)
    arguments = op.request.unpack_from(buffer, _HEADER_SIZE)
    if op.strings:
        strings = bytes(buffer[at:end]).split(b"\0", op.strings)
        rest = strings.pop()
        if len(strings) < op.strings:
            raise MalformedMessage(f"{op.name}: a string does not end", unique)
        for name in strings[: op.names] if op.text else strings:
            if b"/" in name or name in _NO_NAMES:  # the kernel resolves paths, so a name has no slash
                raise MalformedMessage(f"{op.name}: invalid name {name!r}", unique)
        arguments += tuple(strings)
        at = end - len(rest)
    if op.payload:
        arguments += (memoryview(buffer)[at:end],)
    return _request((op, unique, nodeid, uid, gid, pid, arguments))


def forgets(count: int, payload: Buffer) -> Iterable[tuple[int, int]]:
    """Return the pairs (nodeid, nlookup) of a BATCH_FORGET, at most as many as the payload has."""
    size = wire.FORGET_ONE.size
    present = min(count, len(payload) // size)
    return wire.FORGET_ONE.iter_unpack(payload[: present * size])


# -- answers -----------------------------------------------------------------------------------


class Timeout(NamedTuple):
    """How long the kernel may cache a name or attributes."""

    seconds: int
    nanoseconds: int

    @classmethod
    def of(cls, seconds: float) -> "Timeout":
        whole = int(seconds)
        return cls(whole, int((seconds - whole) * _BILLION))


def refusal(unique: int, code: int) -> bytes:
    """Return the answer with the errno `code`."""
    return wire.OUT_HEADER.pack(16, -code, unique)


def notification(code: int, *parts: bytes) -> bytes:
    """Return a notification."""
    body = b"".join(parts)
    return wire.OUT_HEADER.pack(16 + len(body), code, 0) + body


def entry(nodeid: int, names: Timeout, attributes: Timeout, attr: Attributes) -> bytes:
    """Return fuse_entry_out for node `nodeid`."""
    return _pack_entry(nodeid, 0, names[0], attributes[0], names[1], attributes[1]) + packed(attr)


def missing(names: Timeout) -> bytes:
    """Return fuse_entry_out of a negative entry, which the kernel may cache."""
    return entry(0, names, Timeout(0, 0), (0,) * 12)


def attributes(timeout: Timeout, attr: Attributes) -> bytes:
    """Return fuse_attr_out."""
    return wire.ATTR_HEAD.pack(timeout[0], timeout[1], 0) + packed(attr)


def packed(attr: Attributes) -> bytes:
    """Return fuse_attr."""
    ino, mode, nlink, uid, gid, rdev, size, blocks, blksize, atime, mtime, ctime = attr
    return _pack_attr(
        ino,
        size,
        blocks,
        atime // _BILLION,
        mtime // _BILLION,
        ctime // _BILLION,
        atime % _BILLION,
        mtime % _BILLION,
        ctime % _BILLION,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        blksize,
        0,
    )


def statx(timeout: Timeout, attr: Attributes, birth_ns: int | None) -> bytes:
    """Return fuse_statx_out."""
    ino, mode, nlink, uid, gid, rdev, size, blocks, blksize, atime, mtime, ctime = attr
    birth = birth_ns or 0
    return wire.STATX_OUT.pack(
        timeout[0],
        timeout[1],
        0,
        wire.STATX_BASIC_STATS | (wire.STATX_BTIME if birth_ns is not None else 0),
        blksize,
        0,
        nlink,
        uid,
        gid,
        mode,
        0,
        ino,
        size,
        blocks,
        0,
        *(part for time in (atime, birth, ctime, mtime) for part in (*divmod(time, _BILLION), 0)),
        os.major(rdev),
        os.minor(rdev),
        0,
        0,
    )


def joined_names(names: Sequence[bytes]) -> bytes:
    """Return the names as listxattr(2) does."""
    return b"".join(name + b"\0" for name in names)


def dirent(name: bytes, ino: int, kind: int, cookie: int, described: bytes = b"") -> bytes:
    """Return fuse_dirent, or fuse_direntplus with the entry `described`; `cookie` continues after it."""
    size = len(name)
    return described + _pack_dirent(ino, cookie, size, kind) + name + _PADDING[size % wire.DIRENT_ALIGNMENT]
