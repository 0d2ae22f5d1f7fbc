"""Tar archives as literals, made independently of the code under test, and unpacking them in one call."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerstore.layer.unpack.apply import ApplyResult, apply_layer

END = bytes(1024)


def block(
    name: bytes = b"file",
    *,
    kind: bytes = b"0",
    size: int = 0,
    mode: int = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    size_field: bytes | None = None,
    signed: bool = False,
) -> bytes:
    """One header block with a right checksum."""

    def number(value: int | bytes, width: int) -> bytes:
        return value if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)

    head = name.ljust(100, b"\0") + number(mode, 8) + number(uid, 8) + number(gid, 8)
    head += size_field if size_field is not None else number(size, 12)
    head += number(mtime, 12)
    tail = kind + link.ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(64)
    tail += number(device[0], 8) + number(device[1], 8) + prefix.ljust(167, b"\0")
    assert len(head) == 148, len(head)
    assert len(tail) == 356, len(tail)
    content = head + b" " * 8 + tail
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in content)
    return head + b"%06o\0 " % total + tail


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: bytes = b"file", data: bytes = b"", **fields: Any) -> bytes:
    """A header and its data."""
    return block(name, size=len(data), **fields) + padded(data)


def directory(name: bytes, mode: int = 0o755, **fields: Any) -> bytes:
    return member(name, kind=b"5", mode=mode, **fields)


def symlink(name: bytes, target: bytes) -> bytes:
    return member(name, kind=b"2", link=target, mode=0o777)


def hard_link(name: bytes, target: bytes, **fields: Any) -> bytes:
    return member(name, kind=b"1", link=target, **fields)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %b=%b\n" % (length, key, value)


def pax(records: Mapping[bytes, bytes] | Sequence[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """A PAX header; a sequence may hold a key twice."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return member(b"pax", b"".join(record(key, value) for key, value in pairs), kind=kind)


def unpack(tar: bytes, where: Path, **options: Any) -> ApplyResult:
    """Unpack into the directory `where`, which is made if need be."""
    where.mkdir(exist_ok=True)
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return apply_layer(io.BytesIO(tar), fd, **options)
    finally:
        os.close(fd)


def paths(where: Path) -> list[str]:
    """Everything below `where`, sorted."""
    found = []
    for top, dirs, files in os.walk(where):
        found += [os.path.relpath(os.path.join(top, name), where) for name in (*dirs, *files)]
    return sorted(found)
