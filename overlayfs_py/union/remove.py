"""Removing names: whiteouts over what lower layers hold, and inodes that stay reachable while they are in
use.

A name that a lower layer has must be a whiteout in the upper from the moment it is gone. So one system call
removes the upper's entry and puts the whiteout there: rename(2) over a file, an exchange with a directory,
which cannot be renamed over (ovl_remove_and_whiteout in fs/overlayfs/dir.c). Before that call the old entry
shows and after it none. What the call leaves in the work directory (a whiteout not yet used, a directory
just removed with the whiteouts in it) shows nowhere, and the next mount empties that.

Hard links of an index count their names in two places. They are changed so that each single call leaves
both right: see `prepare_unlink` and `links`.
"""

import errno
import os
import stat

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import attrs
from overlayfs_py.union import marks, stash
from overlayfs_py.union.copyup import copy_up, copy_up_dir, link_up
from overlayfs_py.union.exchange import exchange
from overlayfs_py.union.layer import Real
from overlayfs_py.union.links import (
    drop_index,
    needs_index,
    store_count,
    store_nlink,
    unlinking_copies,
    unregister,
)
from overlayfs_py.union.listing import covered, dir_index, in_upper, note_gone
from overlayfs_py.union.lookup import resolve
from overlayfs_py.union.metadata import copy_metadata
from overlayfs_py.union.node import UPPER, DirIndex, Node
from overlayfs_py.union.protection import check_kept, check_removal
from overlayfs_py.union.stack import Stack
from overlayfs_py.union.widening import denies_owner


def _must_exist(stack: Stack, parent: Node, name: bytes) -> Node:
    stack.require_upper()
    node = resolve(stack, parent, name)
    if node is None:
        fail(errno.ENOENT)
    check_removal(stack, parent, node)
    return node


def check_unlink(stack: Stack, parent: Node, name: bytes) -> Node:
    """Raise what `unlink` would refuse, before anything is copied up; return the node whose name goes."""
    node = _must_exist(stack, parent, name)
    if node.is_dir:
        fail(errno.EISDIR)
    return node


def unlink(stack: Stack, parent: Node, name: bytes) -> None:
    """Remove a name that is no directory; ENOENT, EISDIR, EPERM (protected), EROFS.

    The inode stays usable while a node or an open file refers to it. On the disk, in this order: the
    directory is copied up; an inode in the index gets its link and its count; one call takes the name away,
    and leaves a whiteout where a lower has it; the index entry goes with the last name. A crash before the
    one call leaves the old state, after it the name is gone. An index entry without names takes room and
    shows nowhere, as nothing leads to it but whiteouts.
    """
    node = check_unlink(stack, parent, name)
    prepare_unlink(stack, node, parent, name)
    directory = parent.upper or copy_up_dir(stack, parent)
    index = dir_index(stack, parent)
    entry = index.entries[name]
    whiteout = covered(entry)
    if in_upper(entry):
        keep_reachable(stack, node, directory, name)
        if whiteout:
            _replace_by_whiteout(stack, parent, directory, name)
        else:
            os.unlink(name, dir_fd=directory.dir_fd())
    else:
        make_whiteout(stack, parent, directory, name)
    note_gone(index, name, whiteout=whiteout)
    finish_unlink(stack, node, parent, name)


def prepare_unlink(stack: Stack, node: Node, parent: Node, name: bytes) -> None:
    """Before a name of an indexed inode goes, it gets its link in the upper and the union's count is stored
    relative to the upper's: then one system call lowers both, and no crash falls between (ovl_nlink_start).

    An inode that is not yet in the index is copied up for that, unless it has much data (`unlinking_copies`).
    """
    if not (node.keys or node.indexed):
        return
    if unlinking_copies(stack, node):
        copy_up(stack, node, data=False)
    if node.indexed and not in_upper(dir_index(stack, parent).entries[name]):
        link_up(stack, node, parent, name)
    store_nlink(stack, node)


def keep_reachable(stack: Stack, node: Node, directory: Real, name: bytes) -> None:
    """Before the upper entry `name` goes: address the inode by another of its names, or stash it.

    Another name costs nothing and is preferred, if the upper holds it. A node that nothing refers to needs
    no address: the inode may go with its name.
    """
    real = node.upper
    if real is None or real.parent is not directory or real.name != name:
        return
    for parent, other in node.names():
        if parent.upper is None or (parent.upper is directory and other == name):
            continue
        entry = parent.index.entries.get(other) if parent.index is not None else None
        if entry is not None and in_upper(entry):
            node.upper = parent.upper.child(other)
            return
    if node.known or node.opens:
        stash.hold(stack, node)


def finish_unlink(stack: Stack, node: Node, parent: Node, name: bytes) -> None:
    """Update the tables after a name went: link count, index entry, the node's names.

    On the disk two things may follow. The index entry goes when it was the last link. Or, for a lower hard
    link that was not copied up, the number of names that went is stored; without it the next mount would show
    one link too many (`links.store_count`).
    """
    if node.indexed:
        node.nlink = max(0, node.nlink - 1)
        if node.nlink == 0 and node.upper is not None:
            origin = bytes.fromhex(node.upper.name.decode())
            stash.hold(stack, node)  # first: the entry is the last name that the inode has
            drop_index(stack, node, origin)
    elif node.upper is None:
        node.nlink = max(0, _lower_count(stack, node) - 1)
        if needs_index(stack, node):
            store_count(stack, node)
    node.detach(parent, name)
    release_unknown(stack, node)


def _lower_count(stack: Stack, node: Node) -> int:
    """The link count of a node without an upper; where lower names share nodes, one without keys has one."""
    if node.nlink >= 0:
        return node.nlink
    return 1 if stack.link_lowers and not node.keys else node.lowers[0].stat().st_nlink


def release_unknown(stack: Stack, node: Node) -> None:
    """Forget a node that nothing refers to any more: its inode, and with it the number, may be used again."""
    if not node.known and node.unlinked and node.opens == 0:
        unregister(stack, node)
        stash.let_go(stack, node)


def check_empty(stack: Stack, parent: Node, node: Node) -> DirIndex:
    """Return the index of a directory that is to go; ENOTEMPTY, or EACCES where it cannot be listed.

    Empty means empty in the merged view: whiteouts do not count (ovl_check_empty_dir).
    """
    index = dir_index(stack, node)
    if index.unlisted:
        fail(errno.EACCES)
    if index.entries:
        check_kept(stack, parent, node)
        fail(errno.ENOTEMPTY)
    return index


def rmdir(stack: Stack, parent: Node, name: bytes) -> None:
    """Remove an empty directory; ENOENT, ENOTDIR, ENOTEMPTY, EPERM (protected), EROFS.

    The upper's directory may hold whiteouts, so rmdir(2) would refuse it. Removing them one by one in place
    would show what they hide, if a crash came between. So the directory leaves the upper whole, in one call,
    and is taken apart in the work directory: exchanged with a whiteout where a lower has the name, else
    renamed. The kernel empties it first instead (ovl_check_empty_and_clear), to the same effect.
    """
    node = _must_exist(stack, parent, name)
    if not node.is_dir:
        fail(errno.ENOTDIR)
    own_index = check_empty(stack, parent, node)
    directory = copy_up_dir(stack, parent)
    index = dir_index(stack, parent)
    entry = index.entries[name]
    if node.upper is None:
        make_whiteout(stack, parent, directory, name)
    else:
        node.upper.dir_fd()  # opened while it has a name, as it may still be in use
        if covered(entry):
            _exchange_for_whiteout(stack, parent, directory, name)
        elif own_index.whiteouts or _holds_files(stack, node):
            _move_to_work(stack, directory, name)
        else:
            os.rmdir(name, dir_fd=directory.dir_fd())
    note_gone(index, name, whiteout=covered(entry))
    finish_rmdir(stack, node, parent, name)


def _holds_files(stack: Stack, node: Node) -> bool:
    """Whether the upper part of an empty directory may hold something that the union does not show: whiteouts
    that are files, or what a network file system keeps of removed files that are open.
    """
    return UPPER in node.xattr_whiteouts or bool(stack.require_upper().silly_rename_prefix)


def finish_rmdir(stack: Stack, node: Node, parent: Node, name: bytes) -> None:
    """Update the tables after a directory went: its node stays usable, empty for ever, with no links."""
    if node.upper is not None:
        stash.hold_removed(stack, node)
    node.nlink = 0
    node.index = DirIndex()
    node.detach(parent, name)
    release_unknown(stack, node)


def make_whiteout(stack: Stack, parent: Node, directory: Real, name: bytes) -> None:
    """Whiteout `name` in the upper `directory`, where it does not exist: a 0:0 device, else the xattr
    form.

    mknod(2) makes a whole whiteout in one call, so the work directory is not needed (bench: unlink of a lower
    file). The xattr form takes two calls: an empty file without its mark would show.
    """
    fd = directory.dir_fd()
    stack.marks.keep_name(directory, name)
    if stack.capabilities.whiteout_devices:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
        return
    _replace_by_whiteout(stack, parent, directory, name)


def _mark_xattr_whiteouts(stack: Stack, parent: Node, directory: Real) -> None:
    """Before a directory gets its first xattr whiteout: `overlay.opaque` = x, without which lookups do not
    ask files whether they are one. By itself it hides nothing, so a crash after it is harmless.
    """
    if UPPER not in parent.xattr_whiteouts and marks.get_xattr(directory, stack.marks.opaque) is None:
        marks.set_xattr(directory, stack.marks.opaque, b"x")
        parent.xattr_whiteouts |= {UPPER}


def new_whiteout(stack: Stack, parent: Node, directory: Real) -> Real:
    """Make a whiteout in the work directory, to be renamed to a name of `directory`, `parent`'s upper part.
    The caller discards it when it was not used.
    """
    if not stack.capabilities.whiteout_devices:
        _mark_xattr_whiteouts(stack, parent, directory)
    temp = stack.work.new_temp()
    fd, name = temp.at()
    if stack.capabilities.whiteout_devices:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
        try:
            marks.set_xattr(temp, stack.marks.whiteout, b"y")
        except BaseException:
            stack.work.discard(temp)
            raise
    return temp


def _replace_by_whiteout(stack: Stack, parent: Node, directory: Real, name: bytes) -> None:
    """Rename a finished whiteout over a file: the file or the whiteout is there at any moment."""
    stack.marks.keep_name(directory, name)
    temp = new_whiteout(stack, parent, directory)
    fd, temp_name = temp.at()
    try:
        os.rename(temp_name, name, src_dir_fd=fd, dst_dir_fd=directory.dir_fd())
    except BaseException:
        stack.work.discard(temp)
        raise


def _exchange_for_whiteout(stack: Stack, parent: Node, directory: Real, name: bytes) -> None:
    """A directory cannot be renamed over: exchange it with a whiteout, then remove it in the work
    directory.
    """
    stack.marks.keep_name(directory, name)
    temp = new_whiteout(stack, parent, directory)
    try:
        exchange(stack, directory.child(name), temp)
    finally:
        stack.work.discard(temp)


def _move_to_work(stack: Stack, directory: Real, name: bytes) -> None:
    """Take a directory that holds only whiteouts out of the upper in one call, then remove it.

    No lower has its name, so none of them hides anything any more once it is gone.
    """
    temp = stack.work.new_temp()
    fd, temp_name = temp.at()
    os.rename(name, temp_name, src_dir_fd=directory.dir_fd(), dst_dir_fd=fd)
    stack.work.discard(temp)


def clear_whiteouts(stack: Stack, node: Node, directory: Real, name: bytes) -> None:
    """Make the upper of an empty merged directory really empty, so that a rename may replace it.

    It is exchanged with an empty opaque directory that has its metadata (ovl_clear_empty). Opaque is what the
    whiteouts were for: the lower directory stays hidden. So a crash after the exchange, before the rename,
    shows the same empty directory, and nothing that was deleted.
    """
    upper = node.copied
    if not (dir_index(stack, node).whiteouts or _holds_files(stack, node)):
        return
    temp = stack.work.new_temp()
    fd, temp_name = temp.at()
    st = upper.stat()
    os.mkdir(temp_name, 0o700, dir_fd=fd)
    try:
        final = copy_metadata(stack, upper, temp, st)
        closed = denies_owner(stack, st.st_mode)  # and so could not be moved
        (final._replace(mode=st.st_mode | stat.S_IRWXU) if closed else final).apply(temp)
        marks.set_xattr(temp, stack.marks.opaque, b"y")
        attrs.set_times(fd, temp_name, st.st_atime_ns, st.st_mtime_ns)
        exchange(stack, directory.child(name), temp)
        if closed:
            attrs.set_mode(directory.dir_fd(), name, st.st_mode)
    finally:
        stack.work.discard(temp)
