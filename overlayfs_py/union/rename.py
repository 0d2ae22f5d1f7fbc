"""Rename of files and directories, with whiteouts left behind and redirects for merged directories.

The decisions are the kernel's ovl_rename (fs/overlayfs/dir.c): EXDEV for a directory that is in a
lower layer unless redirect_dir=on, RENAME_WHITEOUT refused, everything else done in one
renameat2 on the upper, or in several renames where that has no flags (`exchange`).

What is on the disk after each step of `rename`, in this order, and why a crash there is harmless:

1. Both directories and the entry are copied up. Copies look like what they were copied from.
2. The directory that gets the entry is marked impure. Readers then look for numbers elsewhere; nothing more.
3. The entry is marked, while it still has its old name: with a redirect that says where its lower parts are
   anyway, or as opaque where it has no lower part that the mark could hide.
4. A directory that is replaced, empty but for whiteouts, is exchanged with an empty opaque one: as empty.
5. One call moves the entry and leaves the whiteout. Before it the old state shows, after it the new one.
6. A whiteout that hides nothing may be left at the old name, until it is removed.

After step 5 only tables in memory change, and the index entry of an inode whose last name was replaced.
"""

import errno
import os

from overlayfs_py.errors import fail
from overlayfs_py.syscalls.rename import RENAME_EXCHANGE, RENAME_NOREPLACE
from overlayfs_py.union import marks
from overlayfs_py.union.copyup import (
    becomes_metacopy,
    copy_up,
    copy_up_dir,
    link_up,
    make_impure,
)
from overlayfs_py.union.exchange import exchange as exchange_names
from overlayfs_py.union.exchange import leaves_whiteouts, rename_leaving
from overlayfs_py.union.layer import Real
from overlayfs_py.union.links import keep_source, unlinking_copies
from overlayfs_py.union.listing import (
    check_same_upper,
    covered,
    covered_part,
    dir_index,
    in_upper,
    note_gone,
    note_upper,
)
from overlayfs_py.union.lookup import resolve
from overlayfs_py.union.node import Node
from overlayfs_py.union.protection import check_entry, check_removal
from overlayfs_py.union.redirect import lower_path
from overlayfs_py.union.remove import (
    check_empty,
    clear_whiteouts,
    finish_rmdir,
    finish_unlink,
    keep_reachable,
    new_whiteout,
    prepare_unlink,
)
from overlayfs_py.union.stack import Stack


class _Side:
    """One end of a rename: a name in a directory, and the node there, if any.

    Resolving the node and listing the directory come first: both may fail, and nothing is changed yet.
    """

    __slots__ = ("index", "name", "node", "parent")

    def __init__(self, stack: Stack, parent: Node, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.node = resolve(stack, parent, name)
        self.index = dir_index(stack, parent)

    @property
    def directory(self) -> Real:
        """The upper part of the directory, once that has been copied up."""
        return self.parent.copied

    @property
    def inode(self) -> Node:
        """The node of an end that has one: the old name, and both of an exchange."""
        assert self.node is not None
        return self.node

    def dir_fd(self) -> int:
        return self.directory.dir_fd()

    def real(self) -> Real:
        """The name in the upper."""
        return self.directory.child(self.name)


def check_flags(flags: int) -> None:
    """Raise EINVAL for flags that a user's rename cannot have.

    RENAME_WHITEOUT is one of them: through the mount it would make a whiteout, which is no user's to make.
    """
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
        fail(errno.EINVAL)


def rename(
    stack: Stack, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int = 0
) -> None:
    """Do renameat2 on the merged view; the errno of a refusal is the one of the kernel's overlayfs.

    Raises EROFS, ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EPERM (protected), and EXDEV: for a directory
    with lower parts without redirect_dir=on, for a redirect that is too long, between subvolumes of the
    upper.
    """
    if flags:
        check_flags(flags)
    stack.require_upper()
    old = _Side(stack, parent, name)
    new = _Side(stack, new_parent, new_name)
    exchange = bool(flags & RENAME_EXCHANGE)
    _check(stack, old, new, flags)
    if old.node is new.node:  # two names of one inode: rename(2) does nothing
        return
    _copy_up_both(stack, old, new, exchange=exchange)
    _mark_moved(stack, old, new)
    # A name that begins with .wh. is marked as a name before it is there, and so before a crash can come
    # between.
    stack.marks.keep_name(old.directory, name)  # for the whiteout
    stack.marks.keep_name(new.directory, new_name)
    if exchange:
        _mark_moved(stack, new, old)
        exchange_names(stack, old.real(), new.real())
        _finish_exchange(old, new)
    else:
        _move(stack, old, new)
    if old.index.other_filesystems is not None or new.index.other_filesystems is not None:
        parent.index = new_parent.index = None  # listed anew: what moved may be a subvolume


def check(
    stack: Stack, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
) -> tuple[Node, ...]:
    """Raise what `rename` would refuse, and return the files that it will copy up.

    For an engine that copies long files up in a thread, before it calls `rename`. A refusal must come first:
    a copy made for nothing would stay in the upper.
    """
    check_flags(flags)
    if _in_upper(parent, name, there=True) and _in_upper(new_parent, new_name, there=False):
        return ()  # nothing is copied up, and `rename` itself looks before it changes anything
    stack.require_upper()
    old, new = _Side(stack, parent, name), _Side(stack, new_parent, new_name)
    _check(stack, old, new, flags)
    source, target = old.node, new.node
    if source is target or source is None:
        return ()
    files = [source]
    if target is not None and (flags & RENAME_EXCHANGE or unlinking_copies(stack, target)):
        files.append(target)
    return tuple(node for node in files if not node.is_dir and node.upper is None)


def _in_upper(parent: Node, name: bytes, *, there: bool) -> bool:
    """Whether directory and entry are known to have upper parts; `there`: an entry is needed."""
    node = parent.children.get(name) if parent.children is not None else None
    return parent.upper is not None and (not there if node is None else node.upper is not None)


def _check(stack: Stack, old: _Side, new: _Side, flags: int) -> None:
    """Raise every refusal, in the order of the kernel's checks: programs tell them apart by the first.

    vfs_rename's own come first (missing, existing, protected, types), then those of ovl_rename. The length of
    redirects is the last: it is checked here, too, as the upper must not change before an EXDEV.
    """
    source, target = old.node, new.node
    exchange, noreplace = bool(flags & RENAME_EXCHANGE), bool(flags & RENAME_NOREPLACE)
    if source is None or (exchange and target is None) or new.parent.nlink == 0:
        fail(errno.ENOENT)
    if noreplace and target is not None:
        fail(errno.EEXIST)
    if target is source:
        return
    check_removal(stack, old.parent, source)
    if target is None:
        check_entry(stack, new.parent)
    else:
        check_removal(stack, new.parent, target)
    if not exchange and target is not None:
        if source.is_dir and not target.is_dir:
            fail(errno.ENOTDIR)
        if target.is_dir and not source.is_dir:
            fail(errno.EISDIR)
    check_same_upper(stack, old.index, new.index)
    for node in (source, target) if exchange else (source,):
        if node is not None and node.is_dir and node.lowers and not stack.make_redirects:
            fail(errno.EXDEV)
    if not exchange and target is not None and target.is_dir:
        check_empty(stack, new.parent, target)
    _redirect(stack, old, new)
    if exchange:
        _redirect(stack, new, old)


def _copy_up_both(stack: Stack, old: _Side, new: _Side, *, exchange: bool) -> None:
    """Give both directories and what moves an upper part; a file that is replaced counts its names first."""
    copy_up_dir(stack, new.parent)
    copy_up_dir(stack, old.parent)
    _have_upper_name(stack, old)
    if exchange:
        _have_upper_name(stack, new)
    elif new.node is not None and not new.node.is_dir:
        prepare_unlink(stack, new.node, new.parent, new.name)


def _have_upper_name(stack: Stack, side: _Side) -> None:
    """Make the side's own name exist in the upper, as rename(2) can only move what is there.

    An inode that was copied up under another name has an index entry, and this name becomes a link to it.
    """
    node = side.inode
    if node.is_dir:
        copy_up_dir(stack, node)
    elif node.upper is None:
        node.prefer(side.parent, side.name)  # of several names it is copied up under the one that moves
        copy_up(stack, node, data=False)
    if not in_upper(side.index.entries[side.name]):
        link_up(stack, node, side.parent, side.name)


def _mark_moved(stack: Stack, side: _Side, target: _Side) -> None:
    """Before a node leaves its name: mark where its lower parts are, or that it has none.

    ovl_rename calls ovl_set_redirect and ovl_set_opaque at the same point. Both marks are true of the node
    where it is now, so a crash between mark and move changes nothing: the redirect names the place that the
    lookup by name finds, too, and only a directory without lower parts becomes opaque. Without the mark the
    node would lose its lower parts by the move, or merge with what the lowers have at its new name.
    """
    node = side.inode
    if node.carries_marks:
        make_impure(stack, target.parent)
        keep_source(stack, node, covered_part(stack, node))
    if _wants_redirect(stack, node):
        redirect = _redirect(stack, side, target)
        if redirect is not None:
            marks.set_xattr(node.copied, stack.marks.redirect, redirect)
    elif node.is_dir and target.parent.lowers and marks.get_xattr(node.copied, stack.marks.opaque) != b"y":
        marks.set_xattr(node.copied, stack.marks.opaque, b"y")


def _wants_redirect(stack: Stack, node: Node) -> bool:
    """Whether lower parts belong to it that a lookup by its new name would not find: those of a merged
    directory, or the data of a metacopy file.
    """
    return bool(node.lowers) and (node.is_dir or node.metacopy or becomes_metacopy(stack, node))


def _redirect(stack: Stack, side: _Side, target: _Side) -> bytes | None:
    """What `overlay.redirect` must be before a node with lower parts leaves its name (ovl_set_redirect): the
    name alone while it stays in its directory, else the path, EXDEV when that is too long; None: it needs
    none, or has one that holds.
    """
    node = side.node
    if node is None or not _wants_redirect(stack, node):
        return None
    # A name is enough among siblings. A hard-linked file may be found by names in other directories, too, and
    # from there a name alone would lead elsewhere.
    siblings = side.parent is target.parent and (node.is_dir or node.lowers[0].stat().st_nlink == 1)
    present = marks.get_xattr(node.upper, stack.marks.redirect) if node.upper is not None else None
    if present is not None and (siblings or present.startswith(b"/")):
        return None  # an absolute one holds wherever it moves to
    name = side.name if present is None else present
    return name if siblings else lower_path(stack, side.parent, name)


def _move(stack: Stack, old: _Side, new: _Side) -> None:
    """Move the entry in one call that also leaves a whiteout at the old name, where a lower has that name.

    Without the whiteout the lower's entry would be there again. So neither may come alone: a crash between
    rename and whiteout would show the entry twice, and between whiteout and rename not at all. Three ways:

    - The new name is a whiteout in the upper: exchange the two. A directory can replace a whiteout in no
      other way, and the whiteout arrives where one is needed. Where none is needed it hides nothing until it
      is removed, so a crash before that is harmless.
    - The old name needs a whiteout: RENAME_WHITEOUT.
    - Neither: rename(2), which also replaces a whiteout by a file.
    """
    victim = new.node
    leave_whiteout = covered(old.index.entries.get(old.name))
    new_whiteout = new.name in new.index.whiteouts
    if victim is not None and victim.upper is not None:
        if victim.is_dir:
            victim.upper.dir_fd()  # open while it has a name, as it may be in use
            clear_whiteouts(stack, victim, new.directory, new.name)
        else:
            keep_reachable(stack, victim, new.directory, new.name)
    if new_whiteout and (leave_whiteout or old.inode.is_dir):
        exchange_names(stack, old.real(), new.real())
        if not leave_whiteout:
            os.unlink(old.name, dir_fd=old.dir_fd())
    elif leave_whiteout:
        _rename_leaving_whiteout(stack, old, new)
    else:
        os.rename(old.name, new.name, src_dir_fd=old.dir_fd(), dst_dir_fd=new.dir_fd())
    _finish_move(stack, old, new, whiteout=leave_whiteout)


def _rename_leaving_whiteout(stack: Stack, old: _Side, new: _Side) -> None:
    """Rename with a whiteout left behind: by the file system, or by one made beforehand in the work directory
    (on uppers without RENAME_WHITEOUT, or where whiteouts are files with an xattr).
    """
    if leaves_whiteouts(stack):
        rename_leaving(stack, old.real(), new.real(), None)
        return
    whiteout = new_whiteout(stack, old.parent, old.directory)
    try:
        rename_leaving(stack, old.real(), new.real(), whiteout)
    except BaseException:
        stack.work.discard(whiteout)
        raise


def _finish_move(stack: Stack, old: _Side, new: _Side, *, whiteout: bool) -> None:
    """Update the tables: what was replaced loses its name, both indexes follow, the node has its new name.

    The directory entry keeps its listed inode number: a rename changes no number.
    """
    node, victim = old.inode, new.node
    if victim is not None:
        if victim.is_dir:
            finish_rmdir(stack, victim, new.parent, new.name)
        else:
            finish_unlink(stack, victim, new.parent, new.name)
    ino = old.index.entries[old.name][1]
    note_gone(old.index, old.name, whiteout=whiteout)
    note_upper(new.index, new.name, ino, node.kind)
    _readdress(node, old, new)
    _rename_node(node, old, new)


def _readdress(node: Node, old: _Side, new: _Side) -> None:
    """The real entry moved: follow it, unless the inode is addressed by another name."""
    real = node.upper
    if real is not None and real.parent is old.directory and real.name == old.name:
        real.parent, real.name = new.directory, new.name


def _rename_node(node: Node, old: _Side, new: _Side) -> None:
    """Give the node its new name; one that is not known stays so, as it would never be forgotten."""
    known = old.parent.children is not None and old.parent.children.get(old.name) is node
    node.detach(old.parent, old.name)
    if known:
        node.attach(new.parent, new.name)
    elif node.parent is None:
        node.parent, node.name = new.parent, new.name


def _finish_exchange(old: _Side, new: _Side) -> None:
    """Update the tables after an exchange. Neither name is covered by a whiteout: both still have an entry.

    Whether `first` is addressed by its old name is decided before `second` gets that address.
    """
    first, second = old.inode, new.inode
    first_ino, second_ino = old.index.entries[old.name][1], new.index.entries[new.name][1]
    note_upper(old.index, old.name, second_ino, second.kind)
    note_upper(new.index, new.name, first_ino, first.kind)
    first_moves = first.upper is not None and (first.upper.parent, first.upper.name) == (
        old.directory,
        old.name,
    )
    _readdress(second, new, old)
    if first_moves and first.upper is not None:
        first.upper.parent, first.upper.name = new.directory, new.name
    first_known = old.parent.children is not None and old.parent.children.get(old.name) is first
    second_known = new.parent.children is not None and new.parent.children.get(new.name) is second
    first.detach(old.parent, old.name)
    second.detach(new.parent, new.name)
    for node, known, side in ((first, first_known, new), (second, second_known, old)):
        if known:
            node.attach(side.parent, side.name)
        elif node.parent is None:
            node.parent, node.name = side.parent, side.name
