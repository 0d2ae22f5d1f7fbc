"""Files and directories that chattr(1) has made immutable or append-only: what may not be done to them.

As in the kernel (fs/overlayfs/util.c ovl_check_protattr, ovl_set_protattr) a lower's flags count while it has
no upper part; a copy gets them as the mark `overlay.protattr` and not as flags, which would keep the overlay
itself from putting copies and whiteouts into it. The checks are those of the VFS, which knows no flags of a
FUSE mount: may_delete, may_create, notify_change, xattr_permission, may_open. All say EPERM.
"""

import errno
import fcntl
import os
import stat
from struct import Struct

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import as_owner, attrs
from overlayfs_py.syscalls.statx import attributes
from overlayfs_py.union import marks
from overlayfs_py.union.layer import Real
from overlayfs_py.union.marks import APPEND, IMMUTABLE
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack

# The commands with the bits that both flags have there.
_FLAGS, _XFLAGS = (IMMUTABLE, APPEND), (0x08, 0x10)
QUERIES = {attrs.FS_IOC_GETFLAGS: _FLAGS, attrs.FS_IOC_FSGETXATTR: _XFLAGS}
CHANGES = {attrs.FS_IOC_SETFLAGS: _FLAGS, attrs.FS_IOC_FSSETXATTR: _XFLAGS}
_LONGEST = 64
_WORD = Struct("=I")


def protection(stack: Stack, node: Node) -> int:
    """The node's IMMUTABLE and APPEND; one system call for a lower's, none for others."""
    if node.upper is not None:
        return stack.protected.get(node, 0)
    if not (node.is_dir or node.is_file):
        return 0
    found = as_owner.at(attributes, *node.lowers[0].at()) & (IMMUTABLE | APPEND)
    return found and found & _flags(node)


def _flags(node: Node) -> int:
    """The flags themselves: erofs calls all that it has immutable (STATX_ATTR_IMMUTABLE) and means that
    nobody can write to it, which a copy does not inherit.
    """
    try:
        found: int = _WORD.unpack_from(_ioctl(node, attrs.FS_IOC_GETFLAGS, b""))[0]
    except OSError as error:
        if error.errno in attrs.NO_IOCTL:
            return 0
        raise
    return found


def check_entry(stack: Stack, parent: Node) -> None:
    """Before a name is made in `parent`."""
    if protection(stack, parent) & IMMUTABLE:
        fail(errno.EPERM)


def check_removal(stack: Stack, parent: Node, node: Node) -> None:
    """Before a name of `node` in `parent` goes."""
    if protection(stack, parent) or protection(stack, node):
        fail(errno.EPERM)


def check_kept(stack: Stack, parent: Node, node: Node) -> None:
    """Before a removal is refused for another reason: flags of the upper's file system come first."""
    for real in (parent.upper, node.upper):
        if real is not None and as_owner.at(attributes, *real.at()) & (IMMUTABLE | APPEND):
            fail(errno.EPERM)


def check_change(stack: Stack, node: Node, *, touching: bool = False) -> None:
    """Before attributes change; `touching`: times are set to now, which an append-only file takes."""
    if protection(stack, node) & (IMMUTABLE if touching else IMMUTABLE | APPEND):
        fail(errno.EPERM)


def check_open(stack: Stack, node: Node, flags: int) -> None:
    """Before a file is opened, or its contents are changed without an open (as by O_APPEND)."""
    if not flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
        return
    found = protection(stack, node)
    if found & IMMUTABLE or (found & APPEND and (flags & os.O_TRUNC or not flags & os.O_APPEND)):
        fail(errno.EPERM)


def check_allocation(stack: Stack, node: Node, mode: int) -> None:
    """Before fallocate: an append-only file may get room, and nothing else."""
    found = protection(stack, node)
    if found & IMMUTABLE or (found & APPEND and mode & ~attrs.FALLOC_FL_KEEP_SIZE):
        fail(errno.EPERM)


def copy_protection(stack: Stack, node: Node, temp: Real) -> int:
    """Give a copy the mark of its lower's flags; returns them."""
    found = protection(stack, node)
    if found:
        marks.set_xattr(temp, stack.marks.protection, marks.format_protection(found))
    return found


def query(stack: Stack, node: Node, command: int, data: bytes) -> bytes:
    """A query's answer: the real inode's flags and the mark's."""
    found = bytearray(_ioctl(node, command, data))
    bits = _to_bits(stack.protected.get(node, 0), QUERIES[command])
    _WORD.pack_into(found, 0, _WORD.unpack_from(found)[0] | bits)
    return bytes(found)


def change(stack: Stack, node: Node, command: int, data: bytes) -> bytes:
    """Set the flags of an upper inode: both of ours become the mark, the others are the real inode's."""
    upper = node.copied
    immutable, append = CHANGES[command]
    (word,) = _WORD.unpack_from(data)
    wanted = (IMMUTABLE if word & immutable else 0) | (APPEND if word & append else 0)
    if wanted:
        marks.set_xattr(upper, stack.marks.protection, marks.format_protection(wanted))
        stack.protected[node] = wanted
    changed = _ioctl(node, command, _WORD.pack(word & ~(immutable | append)) + data[_WORD.size :])
    if not wanted and stack.protected.pop(node, 0):
        marks.remove_xattr(upper, stack.marks.protection)
    return changed


def _to_bits(found: int, bits: tuple[int, int]) -> int:
    return (bits[0] if found & IMMUTABLE else 0) | (bits[1] if found & APPEND else 0)


def _ioctl(node: Node, command: int, data: bytes) -> bytes:
    fd = node.top.open_dir() if stat.S_ISDIR(node.kind) else node.top.open(os.O_RDONLY)
    try:
        return fcntl.ioctl(fd, command, data.ljust(_LONGEST, b"\0"))
    finally:
        os.close(fd)
