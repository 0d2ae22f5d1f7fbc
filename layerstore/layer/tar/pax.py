"""Read PAX extended headers: ``LENGTH KEY=VALUE\\n`` records, and what the known keys mean for an entry.

Layers carry xattrs as SCHILY.xattr. LIBARCHIVE's base64 form and ACLs as text are read as well: root
filesystems made by tar and libarchive have them. `sparse_read` handles the GNU.sparse keys.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from layerstore.errors import InvalidLayer
from layerstore.layer.tar import acl_text
from layerstore.layer.tar.entry import Entry

Records = dict[str, bytes]

_SCHILY = "SCHILY.xattr."
_LIBARCHIVE = "LIBARCHIVE.xattr."
_LENGTH = re.compile(rb"[1-9][0-9]{0,19}")
_INTEGER = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")

# Keys that occur several times in sparse format 0.0, where their order matters.
REPEATED = ("GNU.sparse.offset", "GNU.sparse.numbytes")


def parse(body: bytes, records: Records, repeated: list[tuple[str, int]]) -> None:
    """Add the records of one header to `records`; an empty value removes a record, as POSIX says.

    Values of `REPEATED` keys are appended to `repeated`. Raises InvalidLayer for a malformed record.
    """
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 21)
        if space < 0 or not _LENGTH.fullmatch(body, at, space):
            if not body[at:].strip(b"\0"):
                return  # some writers pad inside the declared size
            raise InvalidLayer("a PAX record without a length")
        end = at + int(body[at:space])
        equals = body.find(b"=", space, min(end, len(body)))
        if end > len(body) or body[end - 1 : end] != b"\n" or equals < 0 or equals == space + 1:
            raise InvalidLayer("a PAX record of the wrong length")
        key = body[space + 1 : equals].decode("utf-8", "surrogateescape")
        value = body[equals + 1 : end - 1]
        if key in REPEATED:
            repeated.append((key, integer(value, key)))
        elif value or key.startswith(_SCHILY):
            records[key] = value
        else:
            records.pop(key, None)
        at = end


def integer(value: bytes, key: str) -> int:
    """Read a decimal number that is not negative. Raises InvalidLayer, naming `key`."""
    if not _INTEGER.fullmatch(value):
        raise InvalidLayer(f"PAX {key}={value[:40]!r} is not a number")
    return int(value)


def time_ns(value: bytes) -> int:
    """Read a decimal number of seconds as nanoseconds, without finer digits. Raises InvalidLayer."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise InvalidLayer(f"PAX mtime={value[:40]!r} is not a time")
    sign, seconds, part = match.groups()
    ns = int(seconds) * 1_000_000_000 + int((part or b"")[:9].ljust(9, b"0"))
    return -ns if sign else ns


def apply(records: Records, entry: Entry) -> None:
    """Override the header's fields in `entry` with the records. Raises InvalidLayer for a malformed value."""
    if "path" in records:
        entry.name = records["path"]
    if "linkpath" in records:
        entry.linkname = records["linkpath"]
    if "size" in records:
        entry.size = entry.stored = integer(records["size"], "size")
    if "uid" in records:
        entry.uid = integer(records["uid"], "uid")
    if "gid" in records:
        entry.gid = integer(records["gid"], "gid")
    if "mtime" in records:
        entry.mtime_ns = time_ns(records["mtime"])
    for key, value in records.items():
        if key >= "a":  # POSIX's own, handled above; programs' keys begin with a capital
            continue
        if key.startswith(_SCHILY):
            entry.xattrs[key[len(_SCHILY) :]] = value
        elif key.startswith(_LIBARCHIVE):
            entry.xattrs.setdefault(*_libarchive(key[len(_LIBARCHIVE) :], value))
        elif key in acl_text.XATTRS:
            _add_acl(entry, key, value)


def _add_acl(entry: Entry, key: str, text: bytes) -> None:
    """Add an ACL as the kernel's xattr.

    One with a name that has no number keeps its key; unpacking notes under that key that it is left out.
    """
    acl = acl_text.parse(text)
    if acl is None:
        entry.xattrs[key] = text
    else:
        entry.xattrs.setdefault(acl_text.XATTRS[key], acl)


def _libarchive(key: str, value: bytes) -> tuple[str, bytes]:
    """Decode libarchive's form: the name URL-encoded, the value in base64 without padding."""
    try:
        name = unquote_to_bytes(key.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
        return name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidLayer(f"PAX {_LIBARCHIVE}{key}: not base64") from None
