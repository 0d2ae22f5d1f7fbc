"""Copy-up: the lower inode's copy is complete in the work directory before one rename makes it visible.

Three phases: `prepare` makes the temporary inode with owner, mode and xattrs (union's thread),
`CopyUp.transfer` moves the bytes between two descriptors (any thread), `CopyUp.commit`
re-checks and renames it into place. A crash leaves the lower's version, and a temporary inode
that the next mount removes. Order and marks follow fs/overlayfs/copy_up.c.

What is on the disk after each step, and why a crash there is harmless:

1. The directories above are copied up, each by the steps below. They look like the lower's.
2. The inode is in WORK/work under a number. Nothing leads there, and the next mount empties it.
3. Its data is written, its metadata complete, both durable (fsync). Only now may it get a name: otherwise a
   crash of the machine could keep the rename and lose the data.
4. The directory is marked impure: readers look for the numbers of its entries, and find the same ones.
5. One rename gives it its name. A hard link with an index has two: WORK/index first, from which on all names
   lead to the copy, then a link in the directory (`_place_indexed`).
6. The directory gets back the times it had. A crash before that leaves it a time of now.

A metacopy file gets its data in place, without a second inode, under the mark that says that its data is the
lower's. The mark is removed when the data is durable (ovl_copy_up_meta_inode_data), so a crash before that
leaves a metacopy as it was, with some blocks that nothing reads.
"""

import os
import stat
from collections.abc import Callable

from overlayfs_py.syscalls import attrs
from overlayfs_py.syscalls.copy import copy_data, is_dense
from overlayfs_py.syscalls.xattrs import CAPABILITY
from overlayfs_py.union import handle, marks, stash
from overlayfs_py.union.layer import Real
from overlayfs_py.union.links import drop_count, mark_source, needs_index, register
from overlayfs_py.union.listing import dir_index, note_upper
from overlayfs_py.union.metadata import NOTHING_FINAL, FinalMetadata, copy_metadata, plain_mode
from overlayfs_py.union.node import Node
from overlayfs_py.union.protection import copy_protection
from overlayfs_py.union.stack import Stack
from overlayfs_py.union.widening import denies_owner, widened

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC


class CopyUp:
    """A prepared copy-up of one regular file. Owns both descriptors and the temporary inode until `commit` or
    `abort` ends it; one of them must be called.

    `size`: the bytes that `transfer` will move. It reads and writes nothing but its own two descriptors and
    its own fields, which is why it may run in another thread while the union goes on working. The caller
    makes sure that two transfers of one node do not run at once.
    """

    __slots__ = (
        "_clones",
        "_dense",
        "_dev",
        "_dst_fd",
        "_final",
        "_node",
        "_origin",
        "_protected",
        "_src_fd",
        "_stack",
        "_stat",
        "_temp",
        "size",
    )

    _stat: os.stat_result

    def __init__(self, stack: Stack, node: Node, temp: Real | None) -> None:
        self._stack = stack
        self._node = node
        self._temp = temp  # None: the data of a metacopy file, copied into the upper file itself
        self._final = NOTHING_FINAL
        self._protected = 0
        self._src_fd = self._dst_fd = -1
        self._origin: bytes | None = None
        self._clones = self._dense = False
        self._dev = self.size = 0

    @classmethod
    def of_file(cls, stack: Stack, node: Node, size: int | None) -> "CopyUp":
        """Prepare the copy of a file that has no upper part, with all its data or the first `size` bytes."""
        return cls(stack, node, stack.work.new_temp())._prepared(cls._prepare_file, size)

    @classmethod
    def of_data(cls, stack: Stack, node: Node, size: int | None) -> "CopyUp":
        """Prepare to copy the data of a metacopy file into its upper inode, in place: the mark stays until
        the data is durable.
        """
        return cls(stack, node, None)._prepared(cls._prepare_data, size)

    def _prepared(self, prepare: "Callable[[CopyUp, int | None], None]", size: int | None) -> "CopyUp":
        try:
            prepare(self, size)
        except BaseException:
            self.abort()
            raise
        return self

    def _prepare_file(self, size: int | None) -> None:
        stack, node, temp = self._stack, self._node, self._temp
        assert temp is not None
        # Opening the lower file may be refused. So it comes first: a refusal leaves no copied-up directories.
        st = self._read_from(node.data, size)
        if node.parent is not None and node.parent.upper is None:
            copy_up_dir(stack, node.parent)
        source_fd = self._src_fd
        if node.metacopy:  # a lower's: its metadata is in another file than its data
            source_fd, st = -1, node.top.stat()
        self._stat = st
        names = marks.list_xattrs(node.top) if source_fd < 0 else marks.list_xattrs_fd(source_fd)
        # Most files are ours and plain: made with their mode they need neither chown nor xattrs nor chmod
        # (bench: copy-up by append).
        mode = plain_mode(stack, st, names)
        fd, name = temp.at()
        self._dst_fd = os.open(name, _NEW_FILE, 0o600 if mode is None else mode, dir_fd=fd)
        if mode is None:
            self._final = copy_metadata(stack, node.top, temp, st, names)
        self._protected = copy_protection(stack, node, temp)
        self._origin = _mark_origin(stack, node, st, source_fd, temp, self._dst_fd)

    def _prepare_data(self, size: int | None) -> None:
        upper = self._node.copied
        self._read_from(self._node.data, size)
        self._stat = st = upper.stat()
        self._final = FinalMetadata(st.st_mode, marks.get_xattr(upper, CAPABILITY))
        self._dst_fd = upper.open(os.O_RDWR)

    def _read_from(self, real: Real, size: int | None) -> os.stat_result:
        """Open what is copied, `size` bytes of it if not all; its stat."""
        self._src_fd = handle.open_reading(real)
        st = os.fstat(self._src_fd)
        self.size = st.st_size if size is None else min(size, st.st_size)
        self._dev = st.st_dev
        # Where FICLONE failed once between two file systems, it is not tried for each file (bench: copy-up by
        # append). Where it works no data is moved at all (bench: copy-up of a 256 MiB file).
        self._clones = self._dev not in self._stack.work.unclonable
        self._dense = is_dense(st)
        return st

    def transfer(self) -> None:
        """Move the bytes, complete the metadata, make it durable; errors such as ENOSPC reach the caller,
        who aborts.

        The mode and the capability come after the data, as writing would strip them, and the times after
        both. The fsync comes last and covers all of it. With `volatile` there is none: then a crash of the
        machine may lose anything, and the next mount refuses the work directory.
        """
        dst_fd, st = self._dst_fd, self._stat
        if self.size:
            self._clones = copy_data(self._src_fd, dst_fd, self.size, clone=self._clones, dense=self._dense)
        if self._final is not NOTHING_FINAL:
            self._final.apply_fd(dst_fd)
        os.utime(dst_fd, ns=(st.st_atime_ns, st.st_mtime_ns))
        if not self._stack.options.volatile:
            os.fsync(dst_fd)

    def commit(self) -> None:
        """Make the copy the node's upper. Drop it when another request copied the node up meanwhile.

        The state is checked again here because other operations ran during the transfer: the node may have an
        upper part, or have lost its name, which `_install` deals with. On an error the copy is dropped and
        the node is as before. After success the node keeps the descriptor to write by, which saves opening it
        again (bench: copy-up by append).
        """
        node, stack = self._node, self._stack
        try:
            if self._temp is None:
                if node.metacopy and node.upper is not None:
                    with widened(stack, node):
                        marks.remove_xattr(node.upper, stack.marks.metacopy)
                    node.metacopy = False
                    stack.copy_ups.size += self.size
            elif node.upper is None:
                _install(stack, node, self._temp, self._origin, os.fstat(self._dst_fd))
                node.metacopy = False
                self._temp = None
                if self._protected:
                    stack.protected[node] = self._protected
                if self._final.stripped:
                    stack.stripped.add(node)
                stack.copy_ups.inodes += 1
                stack.copy_ups.size += self.size
            else:
                self.abort()
                return
        except BaseException:
            self.abort()
            raise
        if not self._clones:
            stack.work.unclonable.add(self._dev)
        os.close(self._src_fd)
        if self._protected:
            os.close(self._dst_fd)  # it may not be writable: each open is checked
        else:
            handle.replace(stack, node, self._dst_fd)
        self._src_fd = self._dst_fd = -1

    def abort(self) -> None:
        """Drop the copy and its temporary inode; idempotent, also after `commit`."""
        for fd in (self._src_fd, self._dst_fd):
            if fd >= 0:
                os.close(fd)
        self._src_fd = self._dst_fd = -1
        if self._temp is not None:
            self._stack.work.discard(self._temp)
            self._temp = None


def copy_up_dir(stack: Stack, node: Node) -> Real:
    """Return the directory's upper part, copied up with its ancestors when it has none.

    From the top down, so that each copy has a directory to go to. A crash half way leaves some directories
    copied up without anything in them, which look like the lower's.
    """
    chain: list[Node] = []
    above: Node | None = node
    while above is not None and above.upper is None:
        chain.append(above)
        above = above.parent
    for one in reversed(chain):
        _copy_now(stack, one)
    return node.top


def copy_up(stack: Stack, node: Node, *, data: bool = True, size: int | None = None) -> None:
    """Give the node an upper part now; `data`: with its data; `size`: only that many bytes (a truncation).

    All three phases at once, for operations that no engine has prepared. Nothing to do if it has one.
    """
    job = prepare(stack, node, data=data, size=size)
    if job is None:
        return
    try:
        job.transfer()
    except BaseException:
        job.abort()
        raise
    job.commit()


def prepare(stack: Stack, node: Node, *, data: bool = True, size: int | None = None) -> CopyUp | None:
    """Start a copy-up; None when it is done or was not needed. Ancestors are copied up here.

    Only the data of a regular file may take long. Everything else is copied up at once, so that callers have
    one case to hand to a thread. EROFS without an upper.
    """
    if node.upper is not None:
        return CopyUp.of_data(stack, node, size) if data and node.metacopy else None
    stack.require_upper()
    if not node.is_file or (not data and becomes_metacopy(stack, node)):
        if node.parent is not None:
            copy_up_dir(stack, node.parent)
        _copy_now(stack, node)
        return None
    return CopyUp.of_file(stack, node, size)


def becomes_metacopy(stack: Stack, node: Node) -> bool:
    """Whether a copy-up without data leaves the data in the lower. A file without a name has no path that a
    mark could say, so it is always copied whole.
    """
    return stack.metacopy and node.upper is None and node.is_file and not node.unlinked


def _copy_now(stack: Stack, node: Node) -> None:
    """Copy up a directory, symlink, special file, or a file's metadata only.

    No fsync: there is no data that a rename could come before. The metacopy mark and the size are on the file
    before it gets its name: without the mark its holes would be taken for the contents.
    """
    stack.require_upper()
    st = node.top.stat()
    temp = stack.work.new_temp()
    fd, name = temp.at()
    try:
        _make(node, st, fd, name)
        final = copy_metadata(stack, node.top, temp, st)
        origin = _mark_origin(stack, node, st, -1, temp, -1)
        protected = copy_protection(stack, node, temp)
        if node.is_file:
            os.truncate(b"/proc/self/fd/%d/%s" % (fd, name), node.data.stat().st_size)
            marks.set_xattr(temp, stack.marks.metacopy, b"")
        # A directory that keeps its owner out could not be moved to its place.
        closed = node.is_dir and denies_owner(stack, st.st_mode)
        (final._replace(mode=st.st_mode | stat.S_IRWXU) if closed else final).apply(temp)
        attrs.set_times(fd, name, st.st_atime_ns, st.st_mtime_ns)
        _install(stack, node, temp, origin, temp.stat(), final.mode if closed else None)
    except BaseException:
        stack.work.discard(temp)
        raise
    stack.copy_ups.inodes += 1
    if protected:
        stack.protected[node] = protected
    if final.stripped:
        stack.stripped.add(node)
    if node.is_file:
        node.metacopy = True


def _make(node: Node, st: os.stat_result, fd: int, name: bytes) -> None:
    kind = node.kind
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=fd)
    elif kind == stat.S_IFLNK:
        os.symlink(node.top.readlink(), name, dir_fd=fd)
    elif kind == stat.S_IFREG:
        os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=fd))
    else:
        os.mknod(name, kind, st.st_rdev, dir_fd=fd)


def _mark_origin(
    stack: Stack, node: Node, st: os.stat_result, source_fd: int, temp: Real, temp_fd: int
) -> bytes | None:
    """Mark the copy with where it comes from; returns the handle, empty where there is none. None: the copy
    is an inode of its own. The descriptors are of the node's top part and of `temp`, -1 without.
    """
    if st.st_nlink > 1 and not (node.is_dir or needs_index(stack, node)):
        return None  # breaking a hard link
    origin = stack.origins.encode(node.lowers[0], st.st_dev, source_fd) or b""
    if temp_fd >= 0:
        os.setxattr(temp_fd, stack.marks.origin, origin)
    elif node.kind in (stat.S_IFREG, stat.S_IFDIR) or stack.marks.prefix.startswith("trusted."):
        marks.set_xattr(temp, stack.marks.origin, origin)
    return origin


def _install(
    stack: Stack, node: Node, temp: Real, origin: bytes | None, st: os.stat_result, mode: int | None = None
) -> None:
    """Rename the finished inode (`st`) into place and make it the node's upper. `mode` comes last."""
    if node.unlinked and origin and node.nlink > 0 and needs_index(stack, node):
        node.upper = _place_indexed(stack, node, temp, origin)  # names are left that are not known yet
        node.has_origin = True
        return
    if node.unlinked:
        stash.hold_temporary(stack, node, temp)
        return
    parent = node.directory
    with widened(stack, parent):
        real = node.upper = _place(stack, node, parent, temp, origin)
        if mode is not None:
            attrs.set_mode(*real.at(), mode)
    if origin is not None:
        node.has_origin = True
    elif not node.is_dir:
        node.ino = stack.number(real, st.st_dev, st.st_ino)
    note_upper(dir_index(stack, parent), node.name, st.st_ino, st.st_mode)


def _place(stack: Stack, node: Node, parent: Node, temp: Real, origin: bytes | None) -> Real:
    """Name the temporary inode in the upper (through the index for a lower hard link); the Real to
    address it by.
    """
    directory = parent.copied
    stack.marks.keep_name(directory, node.name)
    if not parent.impure:
        make_impure(stack, parent)
    directory_fd = directory.dir_fd()
    times = os.fstat(directory_fd)
    if origin and needs_index(stack, node):
        real = _place_indexed(stack, node, temp, origin)
        real.link(directory, node.name)
        marks.set_xattr(real, stack.marks.nlink, b"U%+d" % (node.nlink - real.stat().st_nlink))
    else:
        fd, name = temp.at()
        os.rename(name, node.name, src_dir_fd=fd, dst_dir_fd=directory_fd)
        real = temp
        real.parent, real.name = directory, node.name
    restore_times(directory, times)
    return real


def _place_indexed(stack: Stack, node: Node, temp: Real, origin: bytes) -> Real:
    """The index entry comes first, then the name is a link to it: a crash between leaves all names
    consistent.
    """
    lower_st = node.lowers[0].stat()
    node.nlink = lower_st.st_nlink if node.nlink < 0 else node.nlink
    # Relative to the lower's until the name's link exists too, so that a crash in between tells no lie.
    marks.set_xattr(temp, stack.marks.nlink, b"L%+d" % (node.nlink - lower_st.st_nlink))
    mark_source(stack, temp, node.lowers[0])
    fd, name = temp.at()
    entry = stack.work.index.child(origin.hex().encode())
    os.rename(name, entry.name, src_dir_fd=fd, dst_dir_fd=stack.work.index.fd)
    node.indexed = True
    drop_count(stack, origin)
    st = entry.stat()
    register(stack, node, (st.st_dev, st.st_ino))
    return entry


def link_up(stack: Stack, node: Node, parent: Node, name: bytes) -> None:
    """Give a name that only a lower has, of a node already copied up under another, its link in the upper.

    The union's link count does not change (fs/overlayfs/copy_up.c ovl_link_up).
    """
    real = node.copied
    directory = copy_up_dir(stack, parent)
    stack.marks.keep_name(directory, name)
    make_impure(stack, parent)
    times = directory.stat()
    lower_nlink = node.lowers[0].stat().st_nlink if node.lowers else 0
    if node.indexed and lower_nlink:
        marks.set_xattr(real, stack.marks.nlink, b"L%+d" % (node.nlink - lower_nlink))
    real.link(directory, name)
    st = real.stat()
    if node.indexed:
        marks.set_xattr(real, stack.marks.nlink, b"U%+d" % (node.nlink - st.st_nlink))
    restore_times(directory, times)
    note_upper(dir_index(stack, parent), name, st.st_ino, st.st_mode)


def make_impure(stack: Stack, parent: Node) -> None:
    """Mark an upper directory that gets an entry with an origin, so that readdir looks for numbers
    elsewhere.
    """
    if not parent.impure and parent.upper is not None:
        marks.set_xattr(parent.upper, stack.marks.impure, b"y")
        parent.impure = True


def restore_times(directory: Real, st: os.stat_result) -> None:
    """Give a directory back the times it had before a copy-up of something in it."""
    attrs.set_times(*directory.at(), st.st_atime_ns, st.st_mtime_ns)
