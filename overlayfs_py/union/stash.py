"""Inodes without a name that are still in use: kept by descriptor while there is room for that, else by
a name in the work directory, which the next mount empties should a crash leave it there.

So however many removed files are open at once, the daemon has descriptors left. The name is a further hard
link, which the users of the file do not count (`Stack.stashed`); a removed directory, empty for ever, is
replaced by another one that looks the same.

The kernel needs none of this: an inode in use is kept by the dentry. A daemon has only names and descriptors.

The order, for a file: the descriptor or the second name exists before the name goes (`hold`). A crash between
leaves the name, and a link in the work directory that the next mount removes. After the name went, a crash
takes the descriptors with it, and the next mount the links: the inode is gone, as it should be.
"""

import os
import stat

from overlayfs_py.errors import OUT_OF_DESCRIPTORS
from overlayfs_py.syscalls import attrs
from overlayfs_py.union.layer import Real
from overlayfs_py.union.metadata import copy_metadata
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack


def hold(stack: Stack, node: Node) -> None:
    """Before the upper name of a file goes: keep the inode reachable. OSError when neither a descriptor nor a
    link is possible.

    Descriptors first, as long as there are enough: they cost no change of the disk (bench: unlink of a new
    file). The node's own data descriptor, if it has one, is duplicated instead of opening the name again.
    """
    real = node.copied
    if stack.held.full and _stash(stack, node, real):
        return
    try:
        real.detach(node.fd if node.fd_writable else -1)
    except OSError as error:
        if error.errno not in OUT_OF_DESCRIPTORS or not _stash(stack, node, real):
            raise


def hold_temporary(stack: Stack, node: Node, temp: Real) -> None:
    """Make an inode in the work directory the upper part of `node`, which lost its name while it was copied
    up.

    Its temporary name stays as its stash, or goes if a descriptor can hold it. A crash removes it in both
    cases.
    """
    node.upper = temp
    if stack.held.full:
        stack.stashed.add(node)
        return
    fd, name = temp.at()
    temp.detach()
    (os.rmdir if node.is_dir else os.unlink)(name, dir_fd=fd)


def hold_removed(stack: Stack, node: Node) -> None:
    """After a directory was removed: keep something that answers for it. Its descriptor was opened before.

    Unlike files, directories cannot have a second link. So where descriptors are short another directory with
    the same metadata stands in for it: what is left of a removed directory is its metadata alone.
    """
    real = node.copied
    full = stack.held.full
    real.detach()
    if full:
        _stand_in(stack, node, real)


def _stash(stack: Stack, node: Node, real: Real) -> bool:
    """Give the inode a name in the work directory and address it by that; False where that is impossible."""
    temp = stack.work.new_temp()
    where = stack.work.temp
    try:
        real.link(where, temp.name)
    except OSError:  # EMLINK, or no hard links at all
        return False
    if real.parent is None:
        real.drop()
    real.parent, real.name = where, temp.name
    stack.stashed.add(node)
    return True


def _stand_in(stack: Stack, node: Node, real: Real) -> None:
    """Replace a removed directory by a new one in the work directory. If that fails, its descriptor stays."""
    temp = stack.work.new_temp()
    fd, name = temp.at()
    try:
        st = real.stat()
        os.mkdir(name, 0o700, dir_fd=fd)
        copy_metadata(stack, real, temp, st).apply(temp)
        attrs.set_times(fd, name, st.st_atime_ns, st.st_mtime_ns)
    except OSError:
        stack.work.discard(temp)  # then the descriptor stays
        return
    real.drop()
    node.upper = temp
    stack.stashed.add(node)


def let_go(stack: Stack, node: Node) -> None:
    """Take back what kept the inode of a node that is not used any more, or has a name again; idempotent.

    The last link goes here, and with it the blocks of a removed file: an engine forgets nodes before it
    reports a full disk.
    """
    if node in stack.stashed:
        stack.stashed.remove(node)
        if node.upper is not None:
            stack.work.discard(node.upper)
    elif node.upper is not None and not node.indexed:
        node.upper.drop()


def links(stack: Stack, node: Node, st: os.stat_result) -> int:
    """Return the link count to show for a node's inode, whose stat is `st`: without the stash's own link."""
    return st.st_nlink - (node in stack.stashed and not stat.S_ISDIR(st.st_mode))
