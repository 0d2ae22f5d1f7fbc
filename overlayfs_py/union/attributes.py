"""A node's attributes: the real inode's, with the union's number, link count, owner and mode."""

import os
import stat

from overlayfs_py.union import marks, stash
from overlayfs_py.union.attr import Attr, make_attr, mode_override
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack


def attributes(stack: Stack, node: Node) -> Attr:
    """Return a node's attributes as GETATTR shows them.

    fstat(2) of an open file is quicker than a path lookup (bench: create+write+close). Only a descriptor to
    write by is certain to be of the top part: one to read by may be of the lower that has a metacopy's data.
    """
    st = os.fstat(node.fd) if node.fd_writable else (node.upper or node.lowers[0]).stat()
    return from_stat(stack, node, st)


def from_stat(stack: Stack, node: Node, st: os.stat_result) -> Attr:
    """As `attributes`, from a stat of the node's top part that the caller has (bench: stat, first)."""
    nlink = node.nlink
    if nlink < 0:
        nlink = stash.links(stack, node, st) if stack.stashed else st.st_nlink
    if node.is_dir and nlink and (node.lowers or stack.options.static_nlink):
        nlink = 1  # the kernel does not count the subdirectories of a merged directory either
    attr = make_attr(st, node.ino, nlink)
    if node.metacopy:
        # du(1) counts what the file takes; the upper inode has no blocks of its own.
        attr = attr._replace(blocks=node.data.stat().st_blocks)
    return attr if stack.owners_as_stored else _with_owner(stack, node, attr)


def _with_owner(stack: Stack, node: Node, attr: Attr) -> Attr:
    """Return `attr` with owner and mode as the options say. An owner in an xattr is one of the layer's, so it
    is mapped, too.
    """
    if stack.options.xattr_permissions and node.kind != stat.S_IFLNK:
        override = read_override(node)
        if override is not None:
            attr = attr._replace(uid=override[0], gid=override[1], mode=node.kind | override[2])
    return attr._replace(uid=stack.uids.to_mount(attr.uid), gid=stack.gids.to_mount(attr.gid))


def read_override(node: Node) -> tuple[int, int, int] | None:
    """Return (uid, gid, permission bits) from the node's override xattr, None without a valid one that
    counts.
    """
    for name in node.top.layer.overrides:
        value = marks.get_xattr(node.top, name)
        if value is not None:
            return mode_override(value)
    return None
