"""Queries that only btrfs answers: its UUID, and the places of its subvolumes.

Each subvolume has its own st_dev and its own inode numbers, all on one file system.
"""

import errno
import fcntl
import struct

SUPER_MAGIC = 0x9123683E

_FS_INFO_SIZE, _FSID_AT, _UUID_SIZE = 1024, 16, 16
_FS_INFO = 2 << 30 | _FS_INFO_SIZE << 16 | 0x94 << 8 | 31  # BTRFS_IOC_FS_INFO
# struct btrfs_ioctl_get_subvol_rootref_args: a treeid to begin at, pairs (treeid, dirid), how many there are.
_ROOTREF_SIZE, _COUNT_AT = 4096, 8 + 255 * 16
_GET_SUBVOL_ROOTREF = 3 << 30 | _ROOTREF_SIZE << 16 | 0x94 << 8 | 61
_treeid = struct.Struct("=Q")
_pair = struct.Struct("=QQ")


def filesystem_uuid(fd: int) -> bytes:
    """Return the UUID of the btrfs of `fd` (not ``O_PATH``), which has no FS_IOC_GETFSUUID; ENOTTY."""
    buffer = bytearray(_FS_INFO_SIZE)
    fcntl.ioctl(fd, _FS_INFO, buffer)
    return bytes(buffer[_FSID_AT : _FSID_AT + _UUID_SIZE])


def directories_with_subvolumes(fd: int) -> frozenset[int]:
    """Return the inode numbers of directories that hold subvolumes, in the subvolume of `fd`; ENOTTY."""
    found: set[int] = set()
    first = 0
    while True:
        buffer = bytearray(_ROOTREF_SIZE)
        _treeid.pack_into(buffer, 0, first)
        more = False
        try:
            fcntl.ioctl(fd, _GET_SUBVOL_ROOTREF, buffer)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
            more = True
        count = buffer[_COUNT_AT]
        found.update(_pair.unpack_from(buffer, 8 + 16 * number)[1] for number in range(count))
        if not (more and count):
            return frozenset(found)
        first = _treeid.unpack_from(buffer, 0)[0]
