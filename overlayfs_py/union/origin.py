"""Origin handles: the file handle of the lower inode an upper file was copied from (struct ovl_fb).

They keep inode numbers constant over remounts and name the entries of the index
directory. The encoding is the kernel's (fs/overlayfs/copy_up.c ovl_encode_real_fh).
"""

import os
import struct
import sys
from typing import NamedTuple

from overlayfs_py.syscalls import attrs, handles
from overlayfs_py.union.layer import Layer, Real

_HEADER = struct.Struct("=BBBBB16s")  # version, magic, length, flags, handle type, file system's uuid
_MAGIC = 0xFB
_BIG_ENDIAN = 1 if sys.byteorder == "big" else 0
_ANY_ENDIAN = 2
_PATH_UPPER = 4
_NO_UUID = bytes(16)

# Where file systems keep the inode number in a handle, for mounts that may not open by handle.
_XFS, _BTRFS = 0x58465342, 0x9123683E
_INODE_FORMATS = {(_XFS, 0x81): struct.Struct("=Q"), (_BTRFS, 0x4D): struct.Struct("=Q")}
_EXT = 0xEF53
_INODE32 = struct.Struct("=II")


class Origin(NamedTuple):
    """The lower inode a handle names; `nlink` is 0 where only the number could be told."""

    fsid: int
    ino: int
    nlink: int


class Origins:
    """Encodes and decodes origin handles for one stack. Owns a readable descriptor per file system."""

    def __init__(self, layers: list[Layer]) -> None:
        self._by_fsid: dict[int, Layer] = {}
        self._uuids: dict[int, bytes] = {}
        self._mount_fds: dict[int, int] = {}
        self._may_open = True
        for layer in layers:
            if layer.fsid not in self._by_fsid:
                self._by_fsid[layer.fsid] = layer

    def close(self) -> None:
        """Close the descriptors; idempotent."""
        for fd in self._mount_fds.values():
            os.close(fd)
        self._mount_fds.clear()

    def _uuid(self, layer: Layer) -> bytes:
        uuid = self._uuids.get(layer.fsid)
        if uuid is None:
            fd = layer.root.open_dir()
            try:
                uuid = attrs.filesystem_uuid(fd) or _NO_UUID
            finally:
                os.close(fd)
            self._uuids[layer.fsid] = uuid
        return uuid

    def encode(self, real: Real, fd: int = -1) -> bytes | None:
        """`real`'s origin handle; None where its file system has no file handles. `fd`: one of `real`, if
        it is open.
        """
        try:
            kind, handle = handles.encode_handle(fd, b"") if fd >= 0 else handles.encode_handle(*real.at())
        except OSError:
            return None
        if kind > 255:
            return None
        flags = _BIG_ENDIAN | (_PATH_UPPER if real.layer.is_upper else 0)
        size = _HEADER.size + len(handle)
        return _HEADER.pack(0, _MAGIC, size, flags, kind, self._uuid(real.layer)) + handle

    def find(self, origin: bytes) -> Origin | None:
        """The lower inode that `origin` names; None when it is gone or cannot be told."""
        if len(origin) <= _HEADER.size:
            return None
        version, magic, size, flags, kind, uuid = _HEADER.unpack_from(origin)
        if version != 0 or magic != _MAGIC or size != len(origin):
            return None
        if not flags & _ANY_ENDIAN and flags & 1 != _BIG_ENDIAN:
            return None
        handle = origin[_HEADER.size :]
        for fsid, layer in self._by_fsid.items():
            if self._uuid(layer) != uuid:
                continue
            st = self._open(layer, kind, handle) if self._may_open else None
            if st is not None:
                return Origin(fsid, st.st_ino, st.st_nlink)
            ino = None if self._may_open else _parse_inode(layer.fstype, kind, handle)
            if ino is not None:
                return Origin(fsid, ino, 0)
        return None

    def _open(self, layer: Layer, kind: int, handle: bytes) -> os.stat_result | None:
        mount_fd = self._mount_fds.get(layer.fsid)
        if mount_fd is None:
            mount_fd = self._mount_fds[layer.fsid] = layer.root.open_dir()
        try:
            fd = handles.open_handle(mount_fd, kind, handle, os.O_PATH)
        except PermissionError:
            self._may_open = False
            return None
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)


def _parse_inode(fstype: int, kind: int, handle: bytes) -> int | None:
    form = _INODE_FORMATS.get((fstype, kind))
    if form is not None and len(handle) >= form.size:
        return int(form.unpack_from(handle)[0])
    if fstype == _EXT and kind == 1 and len(handle) == _INODE32.size:
        return int(_INODE32.unpack(handle)[0])
    return None
