"""POSIX ACLs as bytes: what a new inode inherits from its directory's default ACL (fs/posix_acl.c
posix_acl_create), and the ids in them, of which the mount may show others than the layers have.
"""

import struct
from collections.abc import Callable

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20
_USER, _GROUP = 0x02, 0x08  # the entries with an id
_MINIMAL = {_USER_OBJ, _GROUP_OBJ, _OTHER}


def inherit(default: bytes, mode: int) -> tuple[bytes | None, int]:
    """(access ACL or None when mode bits say all, permission bits) of an inode created with `mode` under
    `default`.
    """
    entries = [list(e) for e in _ENTRY.iter_unpack(default[_VERSION.size :])]
    tags = {e[0] for e in entries}
    group_tag = _MASK if _MASK in tags else _GROUP_OBJ
    result = mode & ~0o777
    for entry in entries:
        shift = {_USER_OBJ: 6, group_tag: 3, _OTHER: 0}.get(entry[0])
        if shift is not None:
            entry[1] &= mode >> shift & 7
            result |= entry[1] << shift
    if tags <= _MINIMAL:
        return None, result
    return default[: _VERSION.size] + b"".join(_ENTRY.pack(*e) for e in entries), result


def with_ids(value: bytes, user: Callable[[int], int], group: Callable[[int], int]) -> bytes:
    """The ACL `value` with its users' and groups' ids put through `user` and `group`; what is none stays."""
    if len(value) % _ENTRY.size != _VERSION.size % _ENTRY.size:
        return value
    entries = []
    for tag, permissions, number in _ENTRY.iter_unpack(value[_VERSION.size :]):
        if tag == _USER:
            number = user(number)
        elif tag == _GROUP:
            number = group(number)
        entries.append(_ENTRY.pack(tag, permissions, number))
    return value[: _VERSION.size] + b"".join(entries)
