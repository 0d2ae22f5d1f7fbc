"""Write an entry as tar header bytes: ustar where it suffices, else with a PAX header before it.

This is the hot path of a commit and formats by hand: tarfile takes six times as long. It only writes what
every reader of layers accepts (Go archive/tar, GNU tar, libarchive, Python): no base-256 numbers, no user
names, no access or change times, nanoseconds and xattrs as PAX records, raw bytes for names that are not
UTF-8.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import adler32

from layerstore.layer.tar.entry import BLOCK, BLOCK_DEVICE, CHAR_DEVICE, REGULAR, Entry, padding

END = bytes(2 * BLOCK)

_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_XATTR = b"SCHILY.xattr."
_BILLION = 1_000_000_000
# The name of every PAX header: constant, so that the layer depends on no process id or order.
_PAX_NAME = b"././@PaxHeader".ljust(100, b"\0")
_MAGIC_AND_OWNERS = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
_NO_LINK = bytes(100)
_NO_PREFIX = bytes(155)
_DEVICES = (CHAR_DEVICE, BLOCK_DEVICE)
_REST = _MAGIC_AND_OWNERS + _NO_DEVICE + _NO_PREFIX + bytes(12)


def _sum(data: bytes) -> int:
    """Return the sum of up to 255 bytes: the low half of their Adler-32, ten times as fast as sum()."""
    return (adler32(data) & 0xFFFF) - 1


_MTIME_AROUND = len(b"10 mtime=\n")  # the length takes two digits: such a record has 12 to 31 bytes
_SUM_OF_REST = _sum(_REST)
_SUM_OF_SPACES = 8 * 32  # the checksum's own field counts as spaces
_FILE_TAIL = REGULAR + _NO_LINK + _REST
_SUM_OF_FILE = REGULAR[0] + _SUM_OF_REST + _SUM_OF_SPACES


def encode(entry: Entry) -> bytes:
    """Return all header blocks of `entry`, without a sparse file's map, which belongs to its data."""
    records: list[bytes] = []
    name, prefix, link = entry.name, _NO_PREFIX, _NO_LINK
    if len(name) <= 100 and name.isascii() and entry.extents is None:  # nearly every name
        name = name.ljust(100, b"\0")
    else:
        name, prefix = _name_fields(name if entry.extents is None else _sparse_name(name), records)
    if entry.linkname:
        link = _link_field(entry.linkname, records)
    uid, gid, size = entry.uid, entry.gid, entry.stored
    if uid > _OCTAL_7 or gid > _OCTAL_7 or size > _OCTAL_11:
        uid = _number(b"uid", uid, _OCTAL_7, records)
        gid = _number(b"gid", gid, _OCTAL_7, records)
        size = _number(b"size", size, _OCTAL_11, records)
    mtime = _mtime_field(entry.mtime_ns, records)
    if entry.xattrs:
        for key, value in sorted(entry.xattrs.items()):
            records.append(_record(_XATTR + key.encode("utf-8", "surrogateescape"), value))
    if entry.extents is not None:
        records += _sparse_records(entry)
    rest, total = _REST, _SUM_OF_REST
    if prefix is not _NO_PREFIX or entry.kind in _DEVICES:
        device = b"%07o\0%07o\0" % entry.device if entry.kind in _DEVICES else _NO_DEVICE
        rest = b"%b%b%b%b" % (_MAGIC_AND_OWNERS, device, prefix, bytes(12))
        total = _sum(rest)
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name, entry.mode & 0o7777, uid, gid, size, mtime)
    total += (adler32(head) & 0xFFFF) - 1 + entry.kind[0] + _SUM_OF_SPACES
    if link is not _NO_LINK:
        total += _sum(link)
    if not records:
        return b"%b%06o\0 %b%b%b" % (head, total, entry.kind, link, rest)
    body = records[0] if len(records) == 1 else b"".join(records)
    pax, pad = _pax_header(len(body))
    return b"%b%b%b%b%06o\0 %b%b%b" % (pax, body, pad, head, total, entry.kind, link, rest)


def encode_file(name: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int) -> bytes:
    """Return the header of a file without xattrs and holes.

    The same bytes as `encode` returns, in half the time: nearly every entry of a layer is such a file.
    """
    seconds, part = divmod(mtime_ns, _BILLION)
    owned = _owned(mode & 0o7777, uid, gid)
    if len(name) > 100 or not name.isascii() or not owned or not 0 <= seconds <= _OCTAL_11 >= size:
        return encode(Entry(name, REGULAR, mode, uid, gid, size, mtime_ns, stored=size))
    head = b"%b%b%011o\0%011o\0" % (name.ljust(100, b"\0"), owned, size, seconds)
    total = (adler32(head) & 0xFFFF) - 1 + _SUM_OF_FILE
    if not part:
        return b"%b%06o\0 %b" % (head, total, _FILE_TAIL)
    text = (b"%d.%09d" % (seconds, part)).rstrip(b"0")
    length = len(text) + _MTIME_AROUND
    pax, pad = _pax_header(length)
    return b"%b%d mtime=%b\n%b%b%06o\0 %b" % (pax, length, text, pad, head, total, _FILE_TAIL)


@lru_cache(256)  # most files of a layer share a few modes and owners
def _owned(mode: int, uid: int, gid: int) -> bytes:
    """Return the three fields; empty when an id does not fit."""
    return b"%07o\0%07o\0%07o\0" % (mode, uid, gid) if uid <= _OCTAL_7 >= gid else b""


@lru_cache(256)  # with times in nanoseconds every file has a PAX header, nearly always of one length
def _pax_header(size: int) -> tuple[bytes, bytes]:
    """Return the header of `size` bytes of PAX records, and the zeros that fill up their last block."""
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (_PAX_NAME, 0, 0, 0, size, 0)
    total = _sum(head) + b"x"[0] + _SUM_OF_REST + _SUM_OF_SPACES
    return b"%b%06o\0 x%b%b" % (head, total, _NO_LINK, _REST), bytes(padding(size))


def _record(key: bytes, value: bytes) -> bytes:
    """Return ``LENGTH KEY=VALUE\\n``, where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    if rest < 98:  # a record is never so short that one digit suffices
        length = rest + 2
    else:
        length = rest + len(str(rest))
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _name_fields(name: bytes, records: list[bytes]) -> tuple[bytes, bytes]:
    """Return the name and prefix fields; what does not fit them is also added as a PAX record."""
    plain = name.isascii() or not _is_utf8(name)
    if len(name) <= 100:
        fields = name.ljust(100, b"\0"), _NO_PREFIX
    elif split := _split(name):
        fields = split
    else:
        plain = False
        fields = name[:100].rstrip(b"/").ljust(100, b"\0"), _NO_PREFIX
    if not plain:
        records.append(_record(b"path", name))
    return fields


def _is_utf8(name: bytes) -> bool:
    """Return whether a PAX record may hold the name.

    PAX names are UTF-8 by definition. Others go into the header as they are if they fit; all readers accept
    that.
    """
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Cut a long name at a slash into ustar's prefix of 155 and name of 100 bytes; None where that fails."""
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
    if not 0 <= seconds <= _OCTAL_11:
        records.append(_record(b"mtime", decimal_time(mtime_ns)))
        return 0
    if part:  # the same bytes as `decimal_time`, faster: nearly every file needs this
        text = (b"%d.%09d" % (seconds, part)).rstrip(b"0")
        records.append(b"%d mtime=%b\n" % (len(text) + _MTIME_AROUND, text))
    return seconds


def decimal_time(ns: int) -> bytes:
    """Return nanoseconds as PAX's decimal seconds, without trailing zeros."""
    seconds, part = divmod(abs(ns), _BILLION)
    text = (b"%d.%09d" % (seconds, part)).rstrip(b"0").rstrip(b".")
    return b"-" + text if ns < 0 else text


def _sparse_records(entry: Entry) -> list[bytes]:
    """Return the records of PAX sparse format 1.0: the real name and size; the map precedes the data."""
    return [
        _record(b"GNU.sparse.major", b"1"),
        _record(b"GNU.sparse.minor", b"0"),
        _record(b"GNU.sparse.name", entry.name),
        _record(b"GNU.sparse.realsize", b"%d" % entry.size),
    ]


def _sparse_name(name: bytes) -> bytes:
    """Return the name in the header, which shows a reader that lacks this format what it has unpacked."""
    directory, slash, base = name.rpartition(b"/")
    return directory + slash + b"GNUSparseFile.0/" + base
