"""The numbers and strings in the fixed fields of a tar header."""

from __future__ import annotations

from zlib import adler32

from layerstore.errors import InvalidLayer


def text(field: bytes) -> bytes:
    """Return a string field's bytes up to the first NUL."""
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def number(field: bytes) -> int:
    """Read octal digits between spaces and NULs, or base-256 with the top bit set, which may be negative.

    Raises InvalidLayer for anything else.
    """
    digits = field.rstrip(b"\0 ")
    if digits.isdigit():  # nearly always; int() alone would also take signs and underscores
        try:
            return int(digits, 8)
        except ValueError:
            pass
    lead = field[0]
    if lead & 0x80:
        return int.from_bytes(field, "big", signed=True) if lead & 0x40 else _positive(field)
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise InvalidLayer(f"a header field holds {field[:20]!r} instead of a number")
    return int(digits, 8)


def _positive(field: bytes) -> int:
    return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")


def is_header(block: bytes) -> bool:
    """Return whether a header block's checksum is right, summed unsigned or, as old writers did, signed."""
    field = block[148:156]
    try:
        wanted = number(field)
    except InvalidLayer:
        return False
    # The low half of an Adler-32 is one more than the sum of up to 256 bytes; sum() takes five times as long.
    found = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2 - sum(field) + 8 * 32
    return found == wanted or wanted == found - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
