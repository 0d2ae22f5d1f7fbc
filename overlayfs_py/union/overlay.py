"""The overlay as engines see it: one method per VFS operation, which delegates and decides nothing.

All methods raise OSError(errno) only; a lookup miss is None. The overlay owns every
descriptor. It is not thread-safe: only `CopyUp.transfer` may run in another thread.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator

from overlayfs_py.errors import fail
from overlayfs_py.options import UnionOptions
from overlayfs_py.syscalls import attrs
from overlayfs_py.syscalls.copy import copy_range, write_at
from overlayfs_py.syscalls.statx import birth_time_ns
from overlayfs_py.union import (
    attributes,
    copyup,
    create,
    forgetting,
    handle,
    protection,
    remove,
    rename,
    setattr,
    xattrs,
)
from overlayfs_py.union.attr import NOW, Attr, AttrChanges, Caller
from overlayfs_py.union.copyup import CopyUp
from overlayfs_py.union.handle import Handle
from overlayfs_py.union.links import unlinking_copies
from overlayfs_py.union.listing import Listing, work_left
from overlayfs_py.union.lookup import find, list_dir, names_after, resolve, root_node
from overlayfs_py.union.node import Node
from overlayfs_py.union.opening import open_stack
from overlayfs_py.union.probe import Capabilities
from overlayfs_py.union.widening import retry_widened

__all__ = [
    "NOW",
    "WRITING",
    "Attr",
    "AttrChanges",
    "Caller",
    "Capabilities",
    "CopyUp",
    "Handle",
    "Listing",
    "Node",
    "Overlay",
]

# Flags of open(2) that change something, one of them or more.
WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_UNSIGNED = 2**64 - 1
# What modes may deny to a daemon that is an ordinary user, though not to its caller.
_DENIED = (
    *(
        "lookup",
        "find",
        "create",
        "mknod",
        "mkdir",
        "symlink",
        "link",
        "tmpfile",
        "check_unlink",
        "unlink",
        "rmdir",
    ),
    *("check_rename", "rename", "setattr", "setxattr", "removexattr", "open_file", "copy_up"),
    *("durable_fd", "_readable", "_writable"),
)


class Overlay:
    """One mounted stack. `root` is its root node, known until `close`."""

    def __init__(self, options: UnionOptions) -> None:
        self.options = options
        self._stack = open_stack(options)
        try:
            self.root = root_node(self._stack)
        except BaseException:
            self._stack.close()
            raise
        if self._stack.confined:
            retry_widened(self, self._stack, _DENIED)

    @classmethod
    def open(cls, options: UnionOptions) -> "Overlay":
        """Open and check the layers; LayerError or ConfigError names what is wrong, and nothing stays
        open.
        """
        return cls(options)

    def close(self) -> None:
        """Release all descriptors and the lock on the work directory; idempotent."""
        self._stack.close()

    def remove_large_with(self, start: Callable[[Callable[[], None]], None]) -> None:
        """Have `start` remove large directories that nothing refers to any more; it may do so in a thread."""
        if not self.read_only:
            self._stack.work.remove_large = start

    @property
    def read_only(self) -> bool:
        return self._stack.read_only

    def spare_access_times(self, spare: bool) -> None:
        """Whether reading leaves the access times of the upper alone, too, as noatime and ro ask for; to be
        called between operations.
        """
        upper = self._stack.upper
        if upper is not None and upper.layer.noatime != spare:
            upper.layer.noatime = upper.work.layer.noatime = spare
            self._stack.data_fds.clear()  # they were opened for the other

    @property
    def capabilities(self) -> Capabilities:
        return self._stack.capabilities

    @property
    def copied_up(self) -> tuple[int, int]:
        """How many inodes and how many bytes of contents were copied up so far."""
        return self._stack.copy_ups.inodes, self._stack.copy_ups.size

    # --- names -----------------------------------------------------------------------------------

    def lookup(self, parent: Node, name: bytes) -> Node | None:
        """The node `name` of `parent`; it stays known until `forget`. None when there is none."""
        self._stack.dir_fds.trim()
        node = resolve(self._stack, parent, name)
        if node is not None:
            node.attach(parent, name)
        return node

    def find(self, parent: Node, name: bytes) -> tuple[Node, Attr] | None:
        """`lookup` and `getattr` in one, for which one stat is mostly enough."""
        stack = self._stack
        stack.dir_fds.trim()
        found = find(stack, parent, name)
        if found is None:
            return None
        node, st = found
        attr = self.getattr(node) if st is None else attributes.from_stat(stack, node, st)
        node.attach(parent, name)
        return node, attr

    def known_child(self, parent: Node, name: bytes) -> Node | None:
        """The node `name` of `parent` if it is known already; nothing is looked up."""
        return parent.children.get(name) if parent.children is not None else None

    def forget(self, node: Node) -> int:
        """Drop a node that the engine does not refer to any more, with its index and its descriptors. Return
        how many names the dropped indexes held.
        """
        self._stack.dir_fds.trim()
        return forgetting.forget(self._stack, node)

    @property
    def has_debris(self) -> bool:
        """Whether indexes of huge directories that were forgotten wait for `clear_debris`."""
        return bool(self._stack.debris)

    def clear_debris(self) -> Iterator[None]:
        """Free them, in short steps: at once it would take long."""
        return forgetting.clear_debris(self._stack)

    def create(self, parent: Node, name: bytes, flags: int, mode: int, caller: Caller) -> tuple[Node, Handle]:
        """Make and open a regular file; EEXIST."""
        self._stack.trim()
        return create.create(self._stack, parent, name, flags, mode, caller)

    def mknod(self, parent: Node, name: bytes, mode: int, rdev: int, caller: Caller) -> tuple[Node, Attr]:
        """Make a file, fifo, socket or device; EPERM for a 0:0 character device."""
        self._stack.trim()
        return self._made(*create.mknod(self._stack, parent, name, mode, rdev, caller))

    def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> tuple[Node, Attr]:
        """Make a directory."""
        self._stack.trim()
        return self._made(*create.mkdir(self._stack, parent, name, mode, caller))

    def symlink(self, parent: Node, name: bytes, target: bytes, caller: Caller) -> tuple[Node, Attr]:
        """Make a symbolic link."""
        self._stack.trim()
        return self._made(*create.symlink(self._stack, parent, name, target, caller))

    def _made(self, node: Node, st: os.stat_result) -> tuple[Node, Attr]:
        try:
            return node, attributes.from_stat(self._stack, node, st)
        except BaseException:
            self.forget(node)  # the caller gets no node
            raise

    def link(self, node: Node, parent: Node, name: bytes) -> Node:
        """Give `node` a further name; the node itself is returned."""
        self._stack.trim()
        return create.link(self._stack, node, parent, name)

    def tmpfile(self, parent: Node, flags: int, mode: int, caller: Caller) -> tuple[Node, Handle]:
        """Make and open a file without a name."""
        self._stack.trim()
        return create.tmpfile(self._stack, parent, flags, mode, caller)

    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name; the inode stays usable while known or open."""
        self._stack.trim()
        remove.unlink(self._stack, parent, name)

    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory."""
        self._stack.trim()
        remove.rmdir(self._stack, parent, name)

    def check_link(self, node: Node, parent: Node, name: bytes) -> None:
        """Raise what `link` would refuse; for an engine that copies `node` up first, as all of `check_*`."""
        create.check_link(self._stack, node, parent, name)

    def check_unlink(self, parent: Node, name: bytes) -> Node:
        """Raise what `unlink` would refuse; return the node whose name goes."""
        return remove.check_unlink(self._stack, parent, name)

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int = 0) -> None:
        """renameat2 with NOREPLACE and EXCHANGE; EXDEV as the kernel's overlayfs."""
        self._stack.trim()
        rename.rename(self._stack, parent, name, new_parent, new_name, flags)

    def check_rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> tuple[Node, ...]:
        """Raise what `rename` would refuse, as far as something would be copied up before; returned are the
        files that are.
        """
        return rename.check(self._stack, parent, name, new_parent, new_name, flags)

    def readlink(self, node: Node) -> bytes:
        """A symlink's target."""
        return node.top.readlink()

    def list_dir(self, node: Node) -> Listing:
        """A snapshot of the directory's entries."""
        self._stack.trim()
        return list_dir(self._stack, node)

    def names_after(self, node: Node, cookie: int, most: int) -> list[tuple[int, bytes]]:
        """The directory's next names, at most so many: (cookie, name) of those behind `cookie`, 0 at first. A
        name's cookie stays the same for as long as the name, so a reader may go on whatever has changed.
        """
        return names_after(self._stack, node, cookie, most)

    def has_names(self, node: Node, *, ordered: bool = False) -> bool:
        """Whether `listing_work` has nothing to do for a directory that was listed before."""
        index = node.index
        return index is not None and index.rest is None and (index.order is not None or not ordered)

    def listing_work(self, node: Node, *, ordered: bool = False) -> Iterator[None] | None:
        """What takes long of listing a huge directory for the first time, in short steps; None when nothing
        does. Without it, whatever needs all names, or with `ordered` `names_after`, does it at once.
        """
        return work_left(self._stack, node, ordered=ordered)

    def listed(self, node: Node, names: Iterable[bytes]) -> Listing:
        """Some of the directory's entries."""
        return list_dir(self._stack, node, names)

    # --- attributes ------------------------------------------------------------------------------

    def getattr(self, node: Node) -> Attr:
        """The node's attributes."""
        return attributes.attributes(self._stack, node)

    def birth_time(self, node: Node) -> int | None:
        """When the real inode was made, in ns since 1970; None where its file system does not say."""
        return birth_time_ns(*node.top.at())

    def setattr(self, node: Node, changes: AttrChanges) -> Attr:
        """Change attributes; the new ones are returned."""
        self._stack.trim()
        setattr.setattr_node(self._stack, node, changes)
        return self.getattr(node)

    def check_setattr(self, node: Node, changes: AttrChanges) -> None:
        """Raise what `setattr` would refuse."""
        setattr.check(self._stack, node, changes)

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """An xattr's value; ENODATA."""
        return xattrs.getxattr(self._stack, node, name)

    def listxattr(self, node: Node, *, trusted: bool = True) -> list[bytes]:
        """The xattr names; without `trusted` as an ordinary user sees them."""
        return xattrs.listxattr(self._stack, node, trusted=trusted)

    def setxattr(self, node: Node, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an xattr (XATTR_CREATE, XATTR_REPLACE)."""
        self._stack.trim()
        xattrs.setxattr(self._stack, node, name, value, flags)

    def check_setxattr(self, node: Node, name: bytes, value: bytes) -> None:
        """Raise what `setxattr` would refuse."""
        xattrs.check_set(self._stack, node, name, value)

    def check_removexattr(self, node: Node, name: bytes) -> bool:
        """Raise what `removexattr` would refuse; False when it would do nothing."""
        return xattrs.check_remove(self._stack, node, name)

    def removexattr(self, node: Node, name: bytes) -> None:
        """Remove an xattr; ENODATA."""
        self._stack.trim()
        xattrs.removexattr(self._stack, node, name)

    def query_flags(self, node: Node, command: int, data: bytes) -> bytes:
        """FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR."""
        return protection.query(self._stack, node, command, data)

    def change_flags(self, node: Node, command: int, data: bytes) -> bytes:
        """FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR; the next write is checked again, also through an open
        handle.
        """
        copyup.copy_up(self._stack, node, data=False)
        found = protection.change(self._stack, node, command, data)
        if not node.unlinked:  # else it could not be opened again
            node.fd_writable = False
        return found

    # --- data ------------------------------------------------------------------------------------

    def open_file(self, node: Node, flags: int) -> Handle:
        """Open a regular file: copies up when `flags` ask to write, truncates with O_TRUNC."""
        self._stack.trim()
        if flags & WRITING:
            protection.check_open(self._stack, node, flags)
            size = 0 if flags & os.O_TRUNC else None
            self._stack.require_upper()
            copyup.copy_up(self._stack, node, size=size)
            fd = handle.writable_fd(self._stack, node)
            if not node.fd_writable and not flags & os.O_APPEND:
                fail(errno.EPERM)
            if flags & os.O_TRUNC:
                os.ftruncate(fd, 0)
        else:
            handle.readable_fd(self._stack, node)
        return Handle(node, flags)

    def check_open(self, node: Node, flags: int) -> None:
        """Raise what `open_file` would refuse; a write without an open is one for O_WRONLY and O_APPEND."""
        protection.check_open(self._stack, node, flags)

    def release(self, opened: Handle) -> None:
        """End a handle."""
        node = opened.node
        node.opens -= 1
        if node.opens == 0 and not node.known:
            self.forget(node)

    def read(self, node: Node, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end of the file only."""
        return os.pread(self._readable(node), size, offset)

    def data_fd(self, node: Node) -> int:
        """The node's data to read from; the union's own, good until the next operation."""
        return node.fd if node.fd >= 0 else self._readable(node)

    def write(self, node: Node, offset: int, data: bytes | memoryview) -> int:
        """Write `data` at `offset`, after a copy-up if it needs one. Return how many bytes were written."""
        fd = self._writable(node)
        return write_at(fd, data, offset) if node.fd_writable else handle.append(node, offset, data)

    def durable_fd(self, node: Node) -> int | None:
        """A descriptor to sync, for the caller to close; None: nothing to do without an upper, or when
        volatile. The root's serves syncfs, too.
        """
        if node.upper is None or self.options.volatile:
            return None
        if node.fd >= 0 and node.fd_writable:  # else it may be of a lower, whose data a metacopy has
            return os.dup(node.fd)
        return node.upper.open_dir() if node.is_dir else node.upper.open(os.O_RDONLY)

    def fsync(self, node: Node, datasync: bool = False) -> None:
        """Make a file or directory durable; nothing to do for one without an upper, or when volatile."""
        fd = self.durable_fd(node)
        if fd is None:
            return
        try:
            (os.fdatasync if datasync else os.fsync)(fd)
        finally:
            os.close(fd)

    def fallocate(self, node: Node, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        protection.check_allocation(self._stack, node, mode)
        attrs.fallocate(self._writable(node), mode, offset, length)

    def seek(self, node: Node, offset: int, whence: int) -> int:
        """lseek for SEEK_DATA and SEEK_HOLE; ENXIO past the end."""
        return os.lseek(self._readable(node), offset, whence)

    def copy_range(self, node: Node, offset: int, target: Node, target_offset: int, size: int) -> int:
        """copy_file_range between two nodes; the bytes copied."""
        stack = self._stack
        stack.trim()  # not later: the first descriptor must not go for the second
        copyup.copy_up(stack, target)
        target_fd = handle.writable_fd(stack, target)
        return copy_range(handle.readable_fd(stack, node), offset, target_fd, target_offset, size)

    def needs_copy_up(self, node: Node, *, data: bool = True) -> bool:
        """Whether a change of `node` (`data`: of its contents) copies something up first."""
        return node.upper is None or (data and node.metacopy)

    def copy_up_chain(self, node: Node) -> list[Node]:
        """What a copy-up of `node` gives an upper part: the node itself and the directories above it, up to
        the first that has one.
        """
        chain = []
        above: Node | None = node
        while above is not None and above.upper is None:
            chain.append(above)
            above = above.parent
        return chain

    def writes_at_once(self, node: Node) -> bool:
        """Whether a write to `node` needs nothing before it: it was copied up, checked and opened."""
        return node.fd_writable

    def may_back(self, node: Node) -> bool:
        """Whether the kernel may read and write the real file by itself: no copy-up will replace it."""
        return self._stack.read_only or not self.needs_copy_up(node)

    def copy_up(self, node: Node, *, data: bool = True) -> CopyUp | None:
        """Prepare a copy-up whose bytes the caller moves; None when nothing is left to do."""
        self._stack.trim()
        return copyup.prepare(self._stack, node, data=data)

    def unlinking_copies(self, node: Node) -> bool:
        """Whether removing a name of `node` copies it up first: a hard link of a lower that gets indexed."""
        return unlinking_copies(self._stack, node)

    def _readable(self, node: Node) -> int:
        if node.fd < 0:
            self._stack.trim()
            handle.readable_fd(self._stack, node)
        return node.fd

    def _writable(self, node: Node) -> int:
        if not node.fd_writable:
            protection.check_open(self._stack, node, os.O_WRONLY | os.O_APPEND)
        if node.fd < 0 or not node.fd_writable:
            self._stack.trim()
            copyup.copy_up(self._stack, node)
            handle.writable_fd(self._stack, node)
        return node.fd

    # --- descriptors -----------------------------------------------------------------------------

    def spare_descriptors(self) -> bool:
        """Close all that are opened again when needed, as the process has no more; False: there was none."""
        return self._stack.spare()

    def rest(self) -> None:
        """After a while without requests: keep no file open for writing, so that the file system of the upper
        can be remounted read-only meanwhile.
        """
        cache = self._stack.data_fds
        for node in [node for node in cache.owners if node.fd_writable]:
            cache.close(node)

    # --- file system -----------------------------------------------------------------------------

    def statfs(self) -> os.statvfs_result:
        """The upper's file system, or the top lower's; the mount says whether it is read-only.

        No number is negative, as Python makes of those with all bits set (f_files of erofs).
        """
        found = os.fstatvfs(self._stack.layers()[0].root.fd)
        return os.statvfs_result(number & _UNSIGNED for number in found)

    def sync(self) -> None:
        """syncfs of the upper's file system."""
        fd = self.durable_fd(self.root)
        if fd is None:
            return
        try:
            attrs.syncfs(fd)
        finally:
            os.close(fd)
