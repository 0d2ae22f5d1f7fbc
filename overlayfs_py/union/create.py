"""New inodes: files, directories, symlinks, special files, links and nameless files.

An inode that needs more than one call to be complete (another owner, an ACL, a whiteout to
replace) is made in the work directory and renamed; a crash never shows half of one. The rules
are the kernel's ovl_create_or_link (fs/overlayfs/dir.c).

The kernel takes on the caller's credentials for that, so that one call makes the inode with its owner. A
daemon makes it as itself. Where it is the owner anyway, and no ACL and no whiteout is involved, one call in
the upper is enough, too (`_Plan.direct`; bench: create+write+close; tar -x of 3,000 files).

On the disk, in this order: the directory is copied up; if the name begins with .wh., the mark that such names
are names in it; the inode under its temporary name; its owner, ACLs, mode, and the opaque mark; the rename to
its name. A crash before the last leaves something in the work directory, which the next mount empties.
"""

import errno
import os
import stat

from overlayfs_py.errors import fail
from overlayfs_py.syscalls import attrs
from overlayfs_py.syscalls.xattrs import ACL_ACCESS, ACL_DEFAULT
from overlayfs_py.union import acl, marks, stash
from overlayfs_py.union.attr import Caller, format_override
from overlayfs_py.union.copyup import (
    becomes_metacopy,
    copy_up,
    copy_up_dir,
    make_impure,
)
from overlayfs_py.union.exchange import exchange
from overlayfs_py.union.handle import Handle, replace
from overlayfs_py.union.layer import Real
from overlayfs_py.union.links import keep_source, register, store_nlink
from overlayfs_py.union.listing import check_same_upper, covered_part, dir_index, find_entry, note_upper
from overlayfs_py.union.node import UPPER, Directory, DirIndex, Node, OtherFilesystem
from overlayfs_py.union.protection import check_change, check_entry
from overlayfs_py.union.redirect import data_path, point_to_data
from overlayfs_py.union.stack import Stack, override_name
from overlayfs_py.union.widening import denies_owner

# mkdir(2) leaves set-group-ID to the parent's bit, and some file systems (bindfs) make nothing with these.
_BEYOND_PERMISSIONS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX

# A new inode's node, and the stat of what was made.
Made = tuple[Node, os.stat_result]


class _Plan:
    """What a new inode shall be: final mode and ids in the upper, inherited ACLs, and whether one call
    can make it.
    """

    __slots__ = ("acl_access", "acl_default", "gid", "mode", "override", "uid")

    def __init__(self, stack: Stack, parent: Node, mode: int, caller: Caller) -> None:
        gid, default = parent.inherits or inherits(stack, parent)
        kind = stat.S_IFMT(mode)
        self.acl_access = self.acl_default = None
        if default is None or kind == stat.S_IFLNK:
            mode &= ~caller.umask if kind != stat.S_IFLNK else ~0
        else:
            self.acl_access, mode = acl.inherit(default, mode)
            self.acl_default = default if kind == stat.S_IFDIR else None
        if gid is not None and kind == stat.S_IFDIR:
            mode |= stat.S_ISGID
        self.mode = mode
        self.uid, self.gid = map_owner(stack, caller.uid, caller.gid)
        if gid is not None:
            self.gid = gid
        self.override: bytes | None = None
        if stack.options.xattr_permissions and kind != stat.S_IFLNK:
            self.override = format_override(self.uid, self.gid, mode)
            self.uid, self.gid = os.geteuid(), os.getegid()

    def direct(self, stack: Stack) -> bool:
        """One mkdir, mknod or open makes it complete: right owner, no ACL of its own, no umask in the way."""
        return (
            self.uid == stack.euid
            and self.gid == stack.egid
            and self.acl_access is None
            and self.acl_default is None
            and self.override is None
            and stack.umask == 0
        )


def inherits(stack: Stack, parent: Node) -> tuple[int | None, bytes | None]:
    """Return (group that new entries get or None, default ACL or None) of a directory.

    Read once and kept with the node; whatever may change them clears it (bench: create+write+close).
    """
    if parent.inherits is None:
        st = parent.top.stat()
        gid = st.st_gid if st.st_mode & stat.S_ISGID else None
        default = marks.get_xattr(parent.top, ACL_DEFAULT) if stack.capabilities.acls else None
        parent.inherits = gid, default
    return parent.inherits


def map_owner(stack: Stack, uid: int | None, gid: int | None) -> tuple[int, int]:
    """Return the ids to store in the upper, -1 for None; EOVERFLOW for one without a mapping."""
    try:
        return (
            -1 if uid is None else stack.uids.to_layer(uid),
            -1 if gid is None else stack.gids.to_layer(gid),
        )
    except KeyError:
        fail(errno.EOVERFLOW)


def check_new_name(stack: Stack, parent: Node, name: bytes) -> DirIndex:
    """Raise EROFS, ENAMETOOLONG, ENOENT (removed directory), EEXIST or EPERM; return the parent's index.

    The kernel has looked the name up, but its answer may be older than another request's change.
    """
    stack.require_upper()
    if len(name) > stack.name_max:
        fail(errno.ENAMETOOLONG)
    if parent.nlink == 0:
        fail(errno.ENOENT)
    index = dir_index(stack, parent)
    if name in index.entries or (index.unlisted and find_entry(stack, parent, name) is not None):
        fail(errno.EEXIST)
    check_entry(stack, parent)
    return index


def check_link(stack: Stack, node: Node, parent: Node, name: bytes) -> DirIndex:
    """All that `link` refuses before anything is copied up: as `check_new_name`; ENOENT when the last name of
    `node` is gone (a nameless file may get its first), EXDEV for data too far away for a redirect.
    """
    index = check_new_name(stack, parent, name)
    check_change(stack, node)
    if node.unlinked and node.name != TMPFILE and stash.links(stack, node, node.top.stat()) == 0:
        fail(errno.ENOENT)
    if node.parent is not None:
        check_same_upper(stack, index, dir_index(stack, node.parent))
    if node.metacopy or becomes_metacopy(stack, node):
        data_path(stack, node)
    return index


def create(
    stack: Stack, parent: Node, name: bytes, flags: int, mode: int, caller: Caller
) -> tuple[Node, Handle]:
    """Make a regular file and open it read-write; it must not exist. The descriptor that made it is the
    node's, so nothing is opened twice (bench: create+write+close).
    """
    node, _, fd = _make_node(stack, parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller, 0, b"")
    replace(stack, node, fd)
    return node, Handle(node, flags)


def mknod(stack: Stack, parent: Node, name: bytes, mode: int, rdev: int, caller: Caller) -> Made:
    """Make a file of any kind but directory and symlink. A 0:0 character device would be a whiteout:
    EPERM.
    """
    if stat.S_ISCHR(mode) and rdev == 0:
        fail(errno.EPERM)
    if not stat.S_IFMT(mode):
        mode |= stat.S_IFREG
    node, st, fd = _make_node(stack, parent, name, mode, caller, rdev, b"")
    if fd >= 0:
        replace(stack, node, fd)
    return node, st


def mkdir(stack: Stack, parent: Node, name: bytes, mode: int, caller: Caller) -> Made:
    """Make a directory. It is empty, so its index is made here and it is never listed."""
    mode = stat.S_IFDIR | mode & 0o1777
    node, st, _ = _make_node(stack, parent, name, mode, caller, 0, b"")
    node.index = DirIndex()
    if st.st_dev != stack.require_upper().layer.dev:  # in a subvolume of the upper
        node.index.other_filesystems = {UPPER: OtherFilesystem(st.st_dev, {})}
    return node, st


def symlink(stack: Stack, parent: Node, name: bytes, target: bytes, caller: Caller) -> Made:
    """Make a symbolic link to `target`."""
    node, st, _ = _make_node(stack, parent, name, stat.S_IFLNK | 0o777, caller, 0, target)
    return node, st


def _make_node(
    stack: Stack, parent: Node, name: bytes, mode: int, caller: Caller, rdev: int, target: bytes
) -> tuple[Node, os.stat_result, int]:
    """Make the inode in the upper and its node; the descriptor is a regular file's, else -1."""
    index = check_new_name(stack, parent, name)
    plan = _Plan(stack, parent, mode, caller)
    directory = parent.upper or copy_up_dir(stack, parent)
    stack.marks.keep_name(directory, name)
    real = directory.child(name)
    whiteout = name in index.whiteouts
    # A directory over a whiteout must not merge with what the whiteout hides. Where the names are not known a
    # lower may have one as well. Elsewhere no lower has the name, and a mark would only cost space and time.
    opaque = stat.S_ISDIR(mode) and (whiteout or index.unlisted)
    closed = stat.S_ISDIR(mode) and denies_owner(stack, plan.mode)
    if plan.direct(stack) and not (whiteout or (opaque and closed)):
        fd = _make_inode(real, plan.mode, rdev, target)
        if opaque:
            marks.set_xattr(real, stack.marks.opaque, b"y")
    else:
        final, plan.mode = plan.mode, plan.mode | (stat.S_IRWXU if closed else 0)
        fd = _make_in_work(stack, plan, real, rdev, target, opaque=opaque, whiteout=whiteout)
        if closed:  # it could not have been moved
            attrs.set_mode(*real.at(), final)
    st = os.fstat(fd) if fd >= 0 else real.stat()
    note_upper(index, name, st.st_ino, st.st_mode)
    node = Directory(parent, name) if stat.S_ISDIR(mode) else Node(stat.S_IFMT(mode), parent, name)
    node.upper = real
    node.ino = stack.number(real, st.st_dev, st.st_ino)
    node.attach(parent, name)
    return node, st, fd


def _make_inode(real: Real, mode: int, rdev: int, target: bytes) -> int:
    """Make an inode at a free name; return the descriptor of a regular file, else -1. EEXIST."""
    fd, name = real.at()
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        file_fd = os.open(name, flags, stat.S_IMODE(mode), dir_fd=fd)
        if mode & _BEYOND_PERMISSIONS:
            os.fchmod(file_fd, stat.S_IMODE(mode))
        return file_fd
    if kind == stat.S_IFDIR:
        os.mkdir(name, stat.S_IMODE(mode), dir_fd=fd)
        if mode & _BEYOND_PERMISSIONS:
            attrs.set_mode(fd, name, stat.S_IMODE(mode))
    elif kind == stat.S_IFLNK:
        os.symlink(target, name, dir_fd=fd)
    else:
        os.mknod(name, mode, rdev, dir_fd=fd)
    return -1


def _make_in_work(
    stack: Stack, plan: _Plan, real: Real, rdev: int, target: bytes, *, opaque: bool, whiteout: bool
) -> int:
    """Make an inode in the work directory, complete it and give it its name, in place of a whiteout if there
    is one (ovl_create_over_whiteout). On an error nothing is left.
    """
    temp = stack.work.new_temp()
    fd = _make_complete(stack, plan, temp, rdev, target, opaque=opaque)
    try:
        put_in_place(stack, temp, real, over_whiteout=whiteout and stat.S_ISDIR(plan.mode))
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        stack.work.discard(temp)
        if whiteout or not isinstance(error, OSError) or error.errno != errno.EXDEV:
            raise
        # The directory is a subvolume of its own. The kernel makes the inode there, too, with its own owner.
        return _make_complete(stack, plan, real, rdev, target, opaque=opaque)
    return fd


def _make_complete(stack: Stack, plan: _Plan, real: Real, rdev: int, target: bytes, *, opaque: bool) -> int:
    """Make an inode at a free name and complete it; the descriptor is a regular file's, else -1."""
    kind = stat.S_IFMT(plan.mode)
    fd = _make_inode(real, kind | (0o700 if kind == stat.S_IFDIR else 0o600), rdev, target)
    try:
        _complete(stack, plan, real)
        if opaque:
            marks.set_xattr(real, stack.marks.opaque, b"y")
    except BaseException:
        if fd >= 0:
            os.close(fd)
        dir_fd, name = real.at()
        (os.rmdir if kind == stat.S_IFDIR else os.unlink)(name, dir_fd=dir_fd)
        raise
    return fd


def _complete(stack: Stack, plan: _Plan, temp: Real) -> None:
    """Owner first, then ACLs, then the mode, which chown may have narrowed."""
    if (plan.uid, plan.gid) != (stack.euid, stack.egid):
        temp.chown(plan.uid, plan.gid)
    if plan.override is not None:
        marks.set_xattr(temp, override_name(stack), plan.override)
    if plan.acl_access is not None:
        marks.set_xattr(temp, ACL_ACCESS, plan.acl_access)
    if plan.acl_default is not None:
        marks.set_xattr(temp, ACL_DEFAULT, plan.acl_default)
    if not stat.S_ISLNK(plan.mode):
        attrs.set_mode(*temp.at(), stat.S_IMODE(plan.mode))


def put_in_place(stack: Stack, temp: Real, real: Real, *, over_whiteout: bool) -> None:
    """Rename a finished inode to its name; a directory takes a whiteout's place by exchange.

    rename(2) replaces a file by a file, so it replaces a whiteout, but not by a directory. After the exchange
    the whiteout is in the work directory, where it hides nothing.
    """
    fd, name = temp.at()
    target_fd, target = real.at()
    if over_whiteout:
        exchange(stack, real, temp)
        os.unlink(name, dir_fd=fd)
    else:
        os.rename(name, target, src_dir_fd=fd, dst_dir_fd=target_fd)


def link(stack: Stack, node: Node, parent: Node, name: bytes) -> Node:
    """Give `node` a further name and return it; refused as `check_link` says.

    On the disk, in this order: the inode is copied up, the directory too; marks that the new name needs
    (impure directory, path to a metacopy's data, the lower's path); the count relative to the upper's; then
    one link(2), or link and rename where a whiteout is replaced. Every mark is true without the new name as
    well.
    """
    index = check_link(stack, node, parent, name)
    copy_up(stack, node, data=False)
    real = node.copied
    nameless = node.unlinked
    directory = copy_up_dir(stack, parent)
    stack.marks.keep_name(directory, name)
    if node.carries_marks:
        make_impure(stack, parent)
    if node.metacopy:
        point_to_data(stack, node)
    keep_source(stack, node, covered_part(stack, node))
    store_nlink(stack, node)
    if name in index.whiteouts:
        temp = stack.work.new_temp()
        real.link(stack.work.temp, temp.name)  # link(2) replaces nothing, rename(2) does
        put_in_place(stack, temp, directory.child(name), over_whiteout=False)
    else:
        real.link(directory, name)
    if node.nlink >= 0:
        node.nlink += 1
    if nameless:
        node.name = name
        if not node.indexed:
            stash.let_go(stack, node)
            node.upper = real = directory.child(name)
    st = real.stat()
    note_upper(index, name, st.st_ino, st.st_mode)
    if st.st_nlink > 1:
        register(stack, node, (st.st_dev, st.st_ino))
    node.attach(parent, name)
    return node


TMPFILE = b"#tmpfile"


def tmpfile(stack: Stack, parent: Node, flags: int, mode: int, caller: Caller) -> tuple[Node, Handle]:
    """A regular file without a name (O_TMPFILE), which `link` may give one. EOPNOTSUPP where the upper
    has none.
    """
    stack.require_upper()
    if not parent.is_dir:
        fail(errno.ENOTDIR)
    if not stack.capabilities.tmpfile:
        fail(errno.EOPNOTSUPP)
    check_entry(stack, parent)
    plan = _Plan(stack, parent, stat.S_IFREG | stat.S_IMODE(mode), caller)
    directory = copy_up_dir(stack, parent)
    fd = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory.dir_fd())
    node = Node(stat.S_IFREG, None, TMPFILE)
    try:
        real = node.upper = Real.nameless(directory.layer, TMPFILE, fd)
        _complete(stack, plan, real)
        stash.hold(stack, node)
    except BaseException:
        os.close(fd)
        stash.let_go(stack, node)
        raise
    st = os.fstat(fd)
    node.ino = stack.number(real, st.st_dev, st.st_ino)
    node.known = True
    replace(stack, node, fd)
    return node, Handle(node, flags)
