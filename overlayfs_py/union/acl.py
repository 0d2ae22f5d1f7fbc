"""POSIX ACLs as bytes: what a new inode inherits from its directory's default ACL (fs/posix_acl.c
posix_acl_create).
"""

import struct

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20
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
