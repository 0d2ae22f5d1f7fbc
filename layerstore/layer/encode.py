"""An entry as tar header bytes: ustar where it suffices, a PAX header before it where not.

Joined by hand, as this is the hot path of a commit (tarfile takes six times as long). The choices are
those every reader of layers takes (Go archive/tar, GNU tar, libarchive, Python): no base-256 numbers, no
user names, no access or change times, nanoseconds and xattrs as PAX records, raw bytes for names that are
not UTF-8.
"""

from __future__ import annotations

from layerstore.layer.entry import BLOCK, BLOCK_DEVICE, CHAR_DEVICE, Entry, padding

END = bytes(2 * BLOCK)

_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_XATTR = b"SCHILY.xattr."
_BILLION = 1_000_000_000
# What stands before the name of the PAX header itself; constant, so that no process id or order shows.
_PAX_NAME = b"././@PaxHeader".ljust(100, b"\0")
_MAGIC_AND_OWNERS = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
_NO_LINK = bytes(100)


def encode(entry: Entry) -> bytes:
    """All header blocks of `entry`. A sparse file's map, which is part of its data, is not included."""
    records: list[bytes] = []
    sparse = entry.extents is not None
    name, prefix = _name_fields(_sparse_name(entry.name) if sparse else entry.name, records)
    link = _NO_LINK
    if entry.linkname:
        link = _link_field(entry.linkname, records)
    uid = _number(b"uid", entry.uid, _OCTAL_7, records)
    gid = _number(b"gid", entry.gid, _OCTAL_7, records)
    size = _number(b"size", entry.stored, _OCTAL_11, records)
    mtime = _mtime_field(entry.mtime_ns, records)
    for key, value in sorted(entry.xattrs.items()):
        records.append(_record(_XATTR + key.encode("utf-8", "surrogateescape"), value))
    if sparse:
        records += _sparse_records(entry)
    device = _NO_DEVICE
    if entry.kind in (CHAR_DEVICE, BLOCK_DEVICE):
        device = b"%07o\0%07o\0" % entry.device
    header = _header(name, entry.mode & 0o7777, uid, gid, size, mtime, entry.kind, link, device, prefix)
    return _pax(b"".join(records)) + header if records else header


def _header(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
    device: bytes,
    prefix: bytes,
) -> bytes:
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name, mode, uid, gid, size, mtime)
    tail = b"%b%b%b%b%b%b" % (kind, link, _MAGIC_AND_OWNERS, device, prefix, bytes(12))
    checksum = sum(head) + sum(tail) + 8 * 32
    return b"%b%06o\0 %b" % (head, checksum, tail)


def _pax(body: bytes) -> bytes:
    header = _header(_PAX_NAME, 0, 0, 0, len(body), 0, b"x", _NO_LINK, _NO_DEVICE, bytes(155))
    return header + body + bytes(padding(len(body)))


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _name_fields(name: bytes, records: list[bytes]) -> tuple[bytes, bytes]:
    """The name and prefix fields. What they cannot say goes into a PAX record, and they hold what fits."""
    plain = name.isascii() or not _is_utf8(name)
    if len(name) <= 100:
        fields = name.ljust(100, b"\0"), bytes(155)
    elif split := _split(name):
        fields = split
    else:
        plain = False
        fields = name[:100].rstrip(b"/").ljust(100, b"\0"), bytes(155)
    if not plain:
        records.append(_record(b"path", name))
    return fields


def _is_utf8(name: bytes) -> bool:
    """PAX names are UTF-8 by definition; others stand in the header as they are, when they fit, which
    all readers take.
    """
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """ustar's own way to a long name: cut at a slash into a prefix of 155 and a name of 100."""
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None
    return name[cut + 1 :].ljust(100, b"\0"), name[:cut].ljust(155, b"\0")


def _link_field(target: bytes, records: list[bytes]) -> bytes:
    if len(target) > 100 or (not target.isascii() and _is_utf8(target)):
        records.append(_record(b"linkpath", target))
    return target[:100].ljust(100, b"\0")


def _number(key: bytes, value: int, most: int, records: list[bytes]) -> int:
    if value <= most:
        return value
    records.append(_record(key, b"%d" % value))
    return 0


def _mtime_field(mtime_ns: int, records: list[bytes]) -> int:
    seconds, part = divmod(mtime_ns, _BILLION)
    fits = 0 <= seconds <= _OCTAL_11
    if part or not fits:
        records.append(_record(b"mtime", decimal_time(mtime_ns)))
    return seconds if fits else 0


def decimal_time(ns: int) -> bytes:
    """Seconds as PAX writes them: a decimal number with as many digits as there are."""
    seconds, part = divmod(abs(ns), _BILLION)
    text = f"{seconds}.{part:09d}".rstrip("0").rstrip(".")
    return ("-" + text if ns < 0 else text).encode()


def _sparse_records(entry: Entry) -> list[bytes]:
    """PAX sparse format 1.0: the real name and size; the map itself stands before the data."""
    return [
        _record(b"GNU.sparse.major", b"1"),
        _record(b"GNU.sparse.minor", b"0"),
        _record(b"GNU.sparse.name", entry.name),
        _record(b"GNU.sparse.realsize", b"%d" % entry.size),
    ]


def _sparse_name(name: bytes) -> bytes:
    """The name in the header, which tells a reader without this format what it has unpacked."""
    directory, slash, base = name.rpartition(b"/")
    return directory + slash + b"GNUSparseFile.0/" + base
