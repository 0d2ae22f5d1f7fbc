"""Changing attributes: size, owner, mode and times of the upper inode, copied up first.

Each is a system call of its own, so a crash may come between. That is as it is on any file system: a
program's chmod and chown are separate calls, and one SETATTR with several fields comes from one such call
plus what the kernel adds (set-id bits that go, a time). The copy-up before them is complete or not there.
"""

import errno
import os
import stat
import time

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import attrs
from overlayfs_py.union import handle, marks
from overlayfs_py.union.attr import NOW, AttrChanges, format_override
from overlayfs_py.union.attributes import read_override
from overlayfs_py.union.copyup import copy_up
from overlayfs_py.union.create import map_owner
from overlayfs_py.union.node import Node
from overlayfs_py.union.protection import check_change
from overlayfs_py.union.stack import Stack, override_name


def check(stack: Stack, node: Node, changes: AttrChanges) -> None:
    """Raise what is refused before anything is changed: EROFS, EISDIR or EINVAL for a size, EPERM for
    protected files, EOVERFLOW for an owner without a mapping.
    """
    stack.require_upper()
    times = AttrChanges(atime_ns=changes.atime_ns, mtime_ns=changes.mtime_ns)
    # With data=writeback the kernel chooses mtime itself, and tells the time of a write by that alone.
    touching = changes == times and times.mtime_ns is not None and times.atime_ns in (NOW, None)
    if changes.size is not None:
        check_size(node, changes.size)
    check_change(stack, node, touching=touching)
    if changes.uid is not None or changes.gid is not None:
        map_owner(stack, changes.uid, changes.gid)


def setattr_node(stack: Stack, node: Node, changes: AttrChanges) -> None:
    """Apply `changes` in the order size, owner, mode, times: each may disturb those after it.

    Writing and chown clear set-id bits, so the mode comes after them, and all three move times, so these come
    last. A truncation copies up only the bytes that stay; other changes copy metadata only, with metacopy.
    """
    check(stack, node, changes)
    if changes.size is not None:
        truncate(stack, node, changes.size)
    elif node.upper is None:
        copy_up(stack, node, data=False)
    if node.is_dir:
        node.inherits = None  # the group that new entries get may be another now
    if stack.options.xattr_permissions and node.kind != stat.S_IFLNK:
        _override(stack, node, changes)
    else:
        _own(stack, node, changes)
    if changes.atime_ns is not None or changes.mtime_ns is not None:
        _set_times(node, changes.atime_ns, changes.mtime_ns)


def _own(stack: Stack, node: Node, changes: AttrChanges) -> None:
    """Change the real owner and mode, by the descriptor where the upper file is open for writing: quicker
    than by name (bench: create+write+close).
    """
    real = node.top
    if changes.uid is not None or changes.gid is not None:
        ids = map_owner(stack, changes.uid, changes.gid)
        if node.fd_writable:
            os.fchown(node.fd, *ids)
        else:
            real.chown(*ids)
    if changes.mode is None:
        return
    if node.fd_writable:
        os.fchmod(node.fd, stat.S_IMODE(changes.mode))
    else:
        attrs.set_mode(*real.at(), stat.S_IMODE(changes.mode))


def _set_times(node: Node, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set the times that are given. Two of NOW are left to the file system, whose clock stamps writes: ours
    may be ahead of it by a tick, and a file would seem to be newer than what is written after it.
    """
    if (atime_ns, mtime_ns) == (NOW, NOW):
        attrs.touch(*node.top.at())
        return
    if NOW in (atime_ns, mtime_ns):
        now = time.time_ns()
        atime_ns, mtime_ns = (now if given == NOW else given for given in (atime_ns, mtime_ns))
    if node.fd_writable and atime_ns is not None and mtime_ns is not None:
        os.utime(node.fd, ns=(atime_ns, mtime_ns))
    else:
        attrs.set_times(*node.top.at(), atime_ns, mtime_ns)


def _override(stack: Stack, node: Node, changes: AttrChanges) -> None:
    """Under xattr_permissions owner and mode live in an xattr, the owner as the layers have it; the real ones
    stay the daemon's.
    """
    if changes.uid is None and changes.gid is None and changes.mode is None:
        return
    uid, gid, mode = read_override(node) or _real_owner(node)
    new_uid, new_gid = map_owner(stack, changes.uid, changes.gid)
    value = format_override(
        uid if new_uid < 0 else new_uid,
        gid if new_gid < 0 else new_gid,
        mode if changes.mode is None else changes.mode,
    )
    marks.set_xattr(node.top, override_name(stack), value)


def _real_owner(node: Node) -> tuple[int, int, int]:
    st = node.top.stat()
    return st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)


def check_size(node: Node, size: int) -> None:
    """EINVAL for a negative size and for what has none, EISDIR for a directory."""
    if node.is_dir:
        fail(errno.EISDIR)
    if size < 0 or not node.is_file:
        fail(errno.EINVAL)


def truncate(stack: Stack, node: Node, size: int) -> None:
    """Set a regular file's size; only the bytes that stay are copied up."""
    check_size(node, size)
    copy_up(stack, node, size=size)
    os.ftruncate(handle.writable_fd(stack, node), size)
