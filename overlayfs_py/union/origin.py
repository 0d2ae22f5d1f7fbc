"""Origin handles: the file handle of the lower inode an upper file was copied from (struct ovl_fb).

They keep inode numbers constant over remounts and name the entries of the index
directory. The encoding is the kernel's (fs/overlayfs/copy_up.c ovl_encode_real_fh).

A handle says which inode of one file system is meant, and never whether it is that file system: squashfs has
no UUID, and an image made again may have the same one and the same inodes. So a handle alone is believed only
on the upper's own file system, which cannot have been exchanged under the upper. Elsewhere the lower's name
must agree: the one that the upper file covers, or the one that a mark keeps (`Marks.source`) when it has left
that name or is found by the index.
"""

import os
import stat
import struct
import sys
from typing import NamedTuple

from overlayfs_py.syscalls import as_owner, attrs, btrfs, handles
from overlayfs_py.syscalls.attrs import filesystem_type
from overlayfs_py.union.layer import Layer, Real

_HEADER = struct.Struct("=BBBBB16s")  # version, magic, length, flags, handle type, file system's uuid
_MAGIC = 0xFB
_BIG_ENDIAN = 1 if sys.byteorder == "big" else 0
_ANY_ENDIAN = 2
_PATH_UPPER = 4
NO_UUID = bytes(16)

# Where file systems keep the inode number in a handle, for mounts that may not open by handle.
_XFS = 0x58465342
_INODE_FORMATS = {(_XFS, 0x81): struct.Struct("=Q"), (btrfs.SUPER_MAGIC, 0x4D): struct.Struct("=Q")}
_EXT = 0xEF53
_INODE32 = struct.Struct("=II")
_ASKABLE = (stat.S_IFDIR, stat.S_IFREG)


class Origin(NamedTuple):
    """The lower inode that an upper one comes from; `nlink` is 0 where only the number is known."""

    dev: int
    ino: int
    nlink: int


class _Filesystem(NamedTuple):
    """`uuid`: zeros for none. `usable`: origins may name inodes of it. `home`: it is the upper's."""

    uuid: bytes
    kind: int
    usable: bool = False
    home: bool = False

    def is_also(self, other: "_Filesystem") -> bool:
        """Whether it is the same one under another st_dev: btrfs subvolumes."""
        return self.kind == other.kind == btrfs.SUPER_MAGIC and self.uuid == other.uuid


class Origins:
    """Encodes and decodes origin handles for one stack. Owns a descriptor of the upper's file system.

    `trust_null`: one lower file system without a UUID may have origins (the options that ask the kernel to
    follow them do so there, too; ovl_lower_uuid_ok). Several lowers with one UUID, or none, have none.
    """

    def __init__(self, upper: Layer | None, lowers: list[Layer], *, trust_null: bool) -> None:
        self._lowers = lowers
        self._trust_null = trust_null
        self._known: dict[int, _Filesystem] = {}
        self._home: Layer | None = None  # a lower on the upper's file system, if handles alone do there
        self._home_uuid = NO_UUID
        self._mount_fd = -1
        self._may_open = True
        if upper is not None:
            self._learn(upper)

    def _learn(self, upper: Layer) -> None:
        found: dict[int, _Filesystem] = {}
        for layer in (upper, *self._lowers):
            if layer.dev not in found:
                found[layer.dev] = _of_layer(layer)
        own = found[upper.dev]
        self._home_uuid = own.uuid
        self._known[upper.dev] = own._replace(usable=True, home=True)
        devs = {layer.dev for layer in self._lowers}
        for layer in self._lowers:
            one = found[layer.dev]
            same = [found[dev] for dev in devs if dev != layer.dev and found[dev].uuid == one.uuid]
            alone = all(one.is_also(other) for other in same)
            home = layer.dev == upper.dev or one.is_also(own)
            named = one.uuid != NO_UUID or self._trust_null
            self._known[layer.dev] = one._replace(usable=home or (alone and named), home=home)
            if home and alone:
                self._home = layer

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        if self._mount_fd >= 0:
            os.close(self._mount_fd)
            self._mount_fd = -1

    def need_names(self) -> bool:
        """Whether some lower's names have to be kept, as its handles are not enough."""
        return self._home is None or not all(one.home for one in self._known.values())

    def encode(self, real: Real, dev: int, fd: int = -1) -> bytes | None:
        """The origin handle of `real`, which has st_dev `dev`; None where its file system has no file
        handles, or cannot be told from others. `fd`: one of `real`, if it is open.
        """
        filesystem = self._filesystem(real, dev)
        return _encode(real, filesystem.uuid, fd) if filesystem.usable else None

    def _filesystem(self, real: Real, dev: int) -> _Filesystem:
        known = self._known.get(dev)
        if known is None:  # no layer begins in it: a subvolume, or something mounted
            one = _of_file(real, dev)
            same = [other for other in self._known.values() if other.uuid == one.uuid]
            alone = all(one.is_also(other) for other in same)
            home = any(one.is_also(other) and other.home for other in same)
            known = one._replace(usable=alone and one.uuid != NO_UUID, home=home)
            self._known[dev] = known
        return known

    def is_home(self, real: Real, dev: int) -> bool:
        """Whether a handle of `real`, which has st_dev `dev`, is enough, without a name."""
        return self._home is not None and self._filesystem(real, dev).home

    def has_origins(self, real: Real, dev: int) -> bool:
        """Whether inodes of the file system of `real` may be origins."""
        return self._filesystem(real, dev).usable

    def has_uuid(self, real: Real, dev: int) -> bool:
        """Whether the file system of `real` has a name at all."""
        return self._filesystem(real, dev).uuid != NO_UUID

    def find(self, origin: bytes) -> Origin | None:
        """The lower inode that `origin` names on the upper's own file system; None when it is gone, is
        elsewhere or unknown.
        """
        parsed = _decode(origin)
        if parsed is None or self._home is None or parsed[0] != self._home_uuid:
            return None
        _, kind, handle = parsed
        st = self._open(self._home, kind, handle) if self._may_open else None
        if st is not None:
            return Origin(st.st_dev, st.st_ino, st.st_nlink)
        ino = None if self._may_open else _parse_inode(self._home.fstype, kind, handle)
        return None if ino is None else Origin(self._home.dev, ino, 0)

    def _open(self, layer: Layer, kind: int, handle: bytes) -> os.stat_result | None:
        if self._mount_fd < 0:
            self._mount_fd = layer.root.open_dir()
        try:
            fd = handles.open_handle(self._mount_fd, kind, handle, os.O_PATH)
        except PermissionError:
            self._may_open = False
            return None
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def names(self, origin: bytes, real: Real, kind: int) -> Origin | None:
        """The inode at `real`, if it is of type `kind` and `origin` is its handle (or empty: there was an
        origin, and no more is known).
        """
        try:
            st = real.stat()
        except OSError:
            return None
        if stat.S_IFMT(st.st_mode) != kind:
            return None
        if origin and origin != _encode(real, self._filesystem(real, st.st_dev).uuid, -1):
            return None
        return Origin(st.st_dev, st.st_ino, st.st_nlink)

    def named(self, origin: bytes, path: bytes, kind: int) -> Origin | None:
        """As `names`, for `path` in whichever lower has it."""
        for layer in self._lowers:
            found = self.names(origin, real_at(layer, path), kind)
            if found is not None:
                return found
        return None


def real_at(layer: Layer, path: bytes) -> Real:
    """The place `path` in a layer; nothing is looked at."""
    real = layer.root
    for name in path.split(b"/"):
        if name:
            real = real.child(name)
    return real


def _encode(real: Real, uuid: bytes, fd: int) -> bytes | None:
    try:
        kind, handle = (
            handles.encode_handle(fd, b"") if fd >= 0 else as_owner.at(handles.encode_handle, *real.at())
        )
    except OSError:
        return None
    return pack(uuid, kind, handle, upper=real.layer.is_upper)


def pack(uuid: bytes, kind: int, handle: bytes, *, upper: bool = False) -> bytes | None:
    """The origin handle of these; None for a type of handle that has no place in it."""
    if kind > 255:
        return None
    flags = _BIG_ENDIAN | (_PATH_UPPER if upper else 0)
    return _HEADER.pack(0, _MAGIC, _HEADER.size + len(handle), flags, kind, uuid) + handle


def _decode(origin: bytes) -> tuple[bytes, int, bytes] | None:
    """(UUID, handle type, handle); None for what is no origin or of another machine."""
    if len(origin) <= _HEADER.size:
        return None
    version, magic, size, flags, kind, uuid = _HEADER.unpack_from(origin)
    if version != 0 or magic != _MAGIC or size != len(origin):
        return None
    if not flags & _ANY_ENDIAN and flags & 1 != _BIG_ENDIAN:
        return None
    return uuid, kind, origin[_HEADER.size :]


def _of_layer(layer: Layer) -> _Filesystem:
    fd = layer.root.open_dir()
    try:
        return _Filesystem(attrs.filesystem_uuid(fd) or NO_UUID, layer.fstype)
    finally:
        os.close(fd)


def _of_file(real: Real, dev: int) -> _Filesystem:
    """The file system of `real`, asked of its directory or of itself."""
    for one in (real.parent, real):
        try:
            st = None if one is None else one.stat()
            if one is None or st is None or st.st_dev != dev or stat.S_IFMT(st.st_mode) not in _ASKABLE:
                continue
            fd = one.open(os.O_RDONLY)
        except OSError:
            continue
        try:
            return _Filesystem(attrs.filesystem_uuid(fd) or NO_UUID, filesystem_type(fd))
        finally:
            os.close(fd)
    return _Filesystem(NO_UUID, 0)


def _parse_inode(fstype: int, kind: int, handle: bytes) -> int | None:
    form = _INODE_FORMATS.get((fstype, kind))
    if form is not None and len(handle) >= form.size:
        return int(form.unpack_from(handle)[0])
    if fstype == _EXT and kind == 1 and len(handle) == _INODE32.size:
        return int(_INODE32.unpack(handle)[0])
    return None
