"""Convert POSIX ACLs from the text that GNU tar and libarchive write to the xattr's form (posix_acl_xattr.h).

An entry is ``user:NAME:rwx``, with a number in place of the name or behind it (``user:joe:rwx:1000``). A name
without a number means a user of the machine that wrote the tar; it has no meaning on this machine.
"""

from __future__ import annotations

import re
import struct

from layerstore.errors import InvalidLayer, printable
from overlayfs_py.syscalls.xattrs import ACL_ACCESS, ACL_DEFAULT

XATTRS = {"SCHILY.acl.access": ACL_ACCESS, "SCHILY.acl.default": ACL_DEFAULT}

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF
# (tag without a name, tag with one), in the order in which the kernel wants them.
_TAGS = {b"user": (0x01, 0x02), b"group": (0x04, 0x08), b"mask": (0x10, None), b"other": (0x20, None)}
_LINE = re.compile(rb"(user|group|mask|other)::?([^:]*?):?([r-][w-][x-])(?::([0-9]{1,10}))?")


def parse(text: bytes) -> bytes | None:
    """Return the xattr's value; None when an entry has a name without a number. Raises InvalidLayer."""
    entries = []
    for line in re.split(rb"[,\n]", text):
        stripped = line.partition(b"#")[0].strip()
        if stripped:
            entries.append(_entry(stripped))
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries):
        return None
    return _VERSION.pack(2) + b"".join(_ENTRY.pack(*entry) for entry in sorted(known))


def _entry(line: bytes) -> tuple[int, int, int] | None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidLayer(f"an ACL entry {printable(line[:80])!r}")
    who, name, permissions, number = match.groups()
    plain, named = _TAGS[who]
    bits = sum(value for value, letter in zip((4, 2, 1), permissions, strict=True) if letter != ord("-"))
    if not name:
        return plain, bits, _NO_ID
    ident = number or name
    if named is None or not ident.isdigit() or int(ident) >= _NO_ID:
        return None
    return named, bits, int(ident)
