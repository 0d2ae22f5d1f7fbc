"""Inodes without a name that somebody may still use: kept by descriptor while there is room for that, else by
a name in the work directory, which the next mount empties should a crash leave it there.

So however many removed files are open at once, the daemon has descriptors left. The name is a further hard
link, which the users of the file do not count (`Stack.stashed`); a removed directory, empty for ever, is
replaced by another one that looks the same.
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
    """The upper name of a file is about to go: keep the inode reachable."""
    real = node.copied
    if stack.held.full and _stash(stack, node, real):
        return
    try:
        real.detach(node.fd if node.fd_writable else -1)
    except OSError as error:
        if error.errno not in OUT_OF_DESCRIPTORS or not _stash(stack, node, real):
            raise


def hold_temporary(stack: Stack, node: Node, temp: Real) -> None:
    """An inode made in the work directory is `node`'s upper part and gets no other name."""
    node.upper = temp
    if stack.held.full:
        stack.stashed.add(node)
        return
    fd, name = temp.at()
    temp.detach()
    (os.rmdir if node.is_dir else os.unlink)(name, dir_fd=fd)


def hold_removed(stack: Stack, node: Node) -> None:
    """A directory has just been removed, its descriptor is open: keep what answers for it."""
    real = node.copied
    full = stack.held.full
    real.detach()
    if full:
        _stand_in(stack, node, real)


def _stash(stack: Stack, node: Node, real: Real) -> bool:
    """Give the inode a name in the work directory and address it by that; False where that cannot be."""
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
    """Nobody uses the node any more, or it has got a name: take back what kept its inode; idempotent."""
    if node in stack.stashed:
        stack.stashed.remove(node)
        if node.upper is not None:
            stack.work.discard(node.upper)
    elif node.upper is not None and not node.indexed:
        node.upper.drop()


def links(stack: Stack, node: Node, st: os.stat_result) -> int:
    """The links of a node's inode, whose stat is `st`, that are names."""
    return st.st_nlink - (node in stack.stashed and not stat.S_ISDIR(st.st_mode))
