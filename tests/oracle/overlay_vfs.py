"""The operations on `union.Overlay` itself, without a mount: a small stand-in for the kernel's VFS.

It does what the VFS does before and after it asks a file system, for root alone: name lookup,
existence and type checks, open modes, dropping of set-id bits and capabilities. No semantics of the
overlay live here.
"""

import errno
import os
import stat
import time
from dataclasses import dataclass

from overlayfs_py.union.attr import AttrChanges, Caller
from overlayfs_py.union.handle import Handle
from overlayfs_py.union.node import Node
from overlayfs_py.union.overlay import Overlay
from tests import rawcalls
from tests.oracle.resolving import Resolver, fault
from tests.snapshots import Dirent, Status

_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_CAPABILITY = b"security.capability"


@dataclass(eq=False)
class _Open:
    """One open file description."""

    node: Node
    handle: Handle | None
    flags: int
    position: int = 0

    @property
    def readable(self) -> bool:
        return self.flags & _ACCESS != os.O_WRONLY

    @property
    def writable(self) -> bool:
        return self.flags & _ACCESS != os.O_RDONLY


class Files:
    """The part of the VFS that works on open files."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self._resolver = Resolver(overlay)
        self._table: dict[int, _Open] = {}
        self._next = 3
        self._umask = 0o022

    def held_nodes(self) -> set[Node]:
        return {description.node for description in self._table.values()}

    @property
    def caller(self) -> Caller:
        return Caller(0, 0, self._umask)

    def _file(self, fd: int) -> _Open:
        return self._table[fd]

    def _install(self, description: _Open) -> int:
        fd, self._next = self._next, self._next + 1
        self._table[fd] = description
        return fd

    def open(self, path: bytes, flags: int, mode: int) -> int:
        if flags & os.O_CREAT:
            return self._open_creating(path, flags, mode)
        node = self._resolver.node(path, follow=not flags & os.O_NOFOLLOW)
        if node.kind == stat.S_IFLNK:
            raise fault(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP)
        if flags & os.O_DIRECTORY and not node.is_dir:
            raise fault(errno.ENOTDIR)
        if node.is_dir and (flags & _ACCESS != os.O_RDONLY or flags & os.O_TRUNC):
            raise fault(errno.EISDIR)
        return self._open_node(node, flags)

    def _open_creating(self, path: bytes, flags: int, mode: int) -> int:
        if flags & os.O_DIRECTORY:
            raise fault(errno.EINVAL)
        follow = not flags & (os.O_NOFOLLOW | os.O_EXCL)
        place = self._resolver.place(path, follow=follow)
        if place.node is None:
            made, handle = self.overlay.create(place.parent, place.name, flags, mode & 0o7777, self.caller)
            self._resolver.handed_out.add(made)
            return self._install(_Open(made, handle, flags))
        if flags & os.O_EXCL:
            raise fault(errno.EEXIST)
        if place.node.kind == stat.S_IFLNK:
            raise fault(errno.ELOOP)
        if place.node.is_dir:
            raise fault(errno.EISDIR)
        return self._open_node(place.node, flags)

    def _open_node(self, node: Node, flags: int) -> int:
        if flags & os.O_TRUNC:
            self._drop_capability(node)
        return self._install(_Open(node, None if node.is_dir else self.overlay.open_file(node, flags), flags))

    def close(self, fd: int) -> None:
        description = self._table.pop(fd)
        if description.handle is not None:
            self.overlay.release(description.handle)

    def read(self, fd: int, size: int) -> bytes:
        description = self._file(fd)
        data = self.pread(fd, size, description.position)
        description.position += len(data)
        return data

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        description = self._file(fd)
        if not description.readable:
            raise fault(errno.EBADF)
        if description.node.is_dir:
            raise fault(errno.EISDIR)
        return self.overlay.read(description.node, offset, size)

    def write(self, fd: int, data: bytes) -> int:
        description = self._file(fd)
        if description.flags & os.O_APPEND:
            description.position = self._size(description.node) if description.writable else 0
        written = self.pwrite(fd, data, description.position)
        description.position += written
        return written

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        description = self._file(fd)
        if not description.writable:
            raise fault(errno.EBADF)
        if description.flags & os.O_APPEND:
            offset = self._size(description.node)
        self._drop_capability(description.node)
        return self.overlay.write(description.node, offset, data)

    def _size(self, node: Node) -> int:
        return self.overlay.getattr(node).size

    def fstatus(self, fd: int) -> Status:
        return self._status(self._file(fd).node)

    def _status(self, node: Node) -> Status:
        attr = self.overlay.getattr(node)
        return Status(
            attr.ino, attr.mode, attr.nlink, attr.uid, attr.gid, attr.size, attr.rdev, attr.mtime_ns
        )

    def ftruncate(self, fd: int, size: int) -> None:
        description = self._file(fd)
        if description.node.is_dir or not description.writable:
            raise fault(errno.EINVAL)
        self._resize(description.node, size)

    def _resize(self, node: Node, size: int) -> None:
        self._drop_capability(node)
        self._change(node, size=size)

    def _change(self, node: Node, **changes: int) -> None:
        self.overlay.setattr(node, AttrChanges(**changes))

    def _drop_capability(self, node: Node) -> None:
        """What file_remove_privs does, even for root."""
        try:
            self.overlay.getxattr(node, _CAPABILITY)
        except OSError:
            return
        self.overlay.removexattr(node, _CAPABILITY)

    def fchmod(self, fd: int, mode: int) -> None:
        self._set_mode(self._file(fd).node, mode)

    def _set_mode(self, node: Node, mode: int) -> None:
        self._change(node, mode=mode & 0o7777)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        self._set_owner(self._file(fd).node, uid, gid)

    def _set_owner(self, node: Node, uid: int, gid: int) -> None:
        """chown_common: set-id bits and capabilities of anything but a directory go, for root too."""
        changes = {name: value for name, value in (("uid", uid), ("gid", gid)) if value != -1}
        mode = self.overlay.getattr(node).mode
        if not node.is_dir:
            self._drop_capability(node)
            bits = mode & stat.S_ISUID | (mode & stat.S_ISGID if mode & stat.S_IXGRP else 0)
            if bits:
                changes["mode"] = stat.S_IMODE(mode & ~bits)
        self._change(node, **changes)

    def fsetxattr(self, fd: int, name: bytes, value: bytes) -> None:
        self._set_xattr(self._file(fd).node, name, value, 0)

    def _set_xattr(self, node: Node, name: bytes, value: bytes, flags: int) -> None:
        if name.startswith(b"user.") and not (node.is_dir or node.is_file):
            raise fault(errno.EPERM)
        if name.startswith(b"system.posix_acl_"):
            if node.kind == stat.S_IFLNK:
                raise fault(errno.EOPNOTSUPP)
            if name.endswith(b"default") and not node.is_dir:
                raise fault(errno.EACCES)
            flags = 0
        self.overlay.setxattr(node, name, value, flags)

    def fgetxattr(self, fd: int, name: bytes) -> bytes:
        return self._get_xattr(self._file(fd).node, name)

    def _get_xattr(self, node: Node, name: bytes) -> bytes:
        if name.startswith(b"user.") and not (node.is_dir or node.is_file):
            raise fault(errno.ENODATA)
        if name.startswith(b"system.posix_acl_") and node.kind == stat.S_IFLNK:
            raise fault(errno.EOPNOTSUPP)
        return self.overlay.getxattr(node, name)

    def fsync(self, fd: int) -> None:
        self.overlay.fsync(self._file(fd).node)

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        description = self._file(fd)
        if mode & rawcalls.FALLOC_FL_PUNCH_HOLE and not mode & rawcalls.FALLOC_FL_KEEP_SIZE:
            raise fault(errno.EOPNOTSUPP)
        if not description.writable:
            raise fault(errno.EBADF)
        self._drop_capability(description.node)
        self.overlay.fallocate(description.node, mode, offset, length)

    def seek(self, fd: int, offset: int, whence: int) -> int:
        description = self._file(fd)
        description.position = self.overlay.seek(description.node, offset, whence)
        return description.position

    def copy_range(self, fd: int, offset: int, out_fd: int, out_offset: int, size: int) -> int:
        source, target = self._file(fd), self._file(out_fd)
        if source.node.is_dir or target.node.is_dir:
            raise fault(errno.EISDIR)
        if not source.readable or not target.writable or target.flags & os.O_APPEND:
            raise fault(errno.EBADF)
        size = max(0, min(size, self._size(source.node) - offset))
        if source.node is target.node and offset < out_offset + size and out_offset < offset + size:
            raise fault(errno.EINVAL)
        if size == 0:
            return 0
        self._drop_capability(target.node)
        return self.overlay.copy_range(source.node, offset, target.node, out_offset, size)

    def map_read(self, fd: int, offset: int, size: int) -> bytes:
        raise NotImplementedError("mappings are the kernel's")

    def map_write(self, fd: int, offset: int, data: bytes) -> None:
        raise NotImplementedError("mappings are the kernel's")

    def dirents(self, fd: int) -> list[Dirent]:
        node = self._file(fd).node
        if not node.is_dir:
            raise fault(errno.ENOTDIR)
        if node.unlinked:
            raise fault(errno.ENOENT)
        return [Dirent(*entry) for entry in self.overlay.list_dir(node).entries]


class OverlayVfs(Files):
    """The whole interface: open files, and paths."""

    def forget(self) -> None:
        """What the kernel does under memory pressure: forgets all it does not hold, deepest first."""
        keep = self.held_nodes() | {self.overlay.root}
        for node in list(keep):
            while node.parent is not None:
                node = node.parent
                keep.add(node)
        gone = [node for node in self._resolver.handed_out if node not in keep]
        for node in sorted(gone, key=_depth, reverse=True):
            self.overlay.forget(node)
        self._resolver.handed_out.intersection_update(keep)

    def close_all(self) -> None:
        for fd in list(self._table):
            self.close(fd)

    def tmpfile(self, directory: bytes, mode: int, data: bytes, path: bytes) -> None:
        parent = self._resolver.node(directory, follow=True)
        if not parent.is_dir:
            raise fault(errno.ENOTDIR)
        node, handle = self.overlay.tmpfile(parent, os.O_RDWR, mode & 0o7777, self.caller)
        try:
            self.overlay.write(node, 0, data)
            if path:
                place = self._resolver.vacancy(path)
                self._resolver.handed_out.add(self.overlay.link(node, place.parent, place.name))
        finally:
            self.overlay.release(handle)

    def status(self, path: bytes, follow: bool) -> Status:
        return self._status(self._resolver.node(path, follow=follow))

    def target(self, path: bytes) -> bytes:
        node = self._resolver.node(path, follow=False)
        if node.kind != stat.S_IFLNK:
            raise fault(errno.EINVAL)
        return self.overlay.readlink(node)

    def access(self, path: bytes, mode: int) -> bool:
        try:
            status = self.status(path, True)
        except OSError:
            return False
        return not mode & os.X_OK or stat.S_ISDIR(status.mode) or bool(status.mode & 0o111)

    def mkdir(self, path: bytes, mode: int) -> None:
        place = self._resolver.vacancy(path)
        made, _ = self.overlay.mkdir(place.parent, place.name, mode & 0o1777, self.caller)
        self._resolver.handed_out.add(made)

    def rmdir(self, path: bytes) -> None:
        place, node = self._resolver.occupied(path)
        if not node.is_dir:
            raise fault(errno.ENOTDIR)
        self.overlay.rmdir(place.parent, place.name)

    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        place = self._resolver.vacancy(path)
        made, _ = self.overlay.mknod(place.parent, place.name, mode, rdev, self.caller)
        self._resolver.handed_out.add(made)

    def bind(self, path: bytes) -> None:
        parent = self._resolver.node(os.path.dirname(path), follow=True)
        if not parent.is_dir:
            raise fault(errno.ENOTDIR)
        if len(os.path.basename(path)) > 60:
            raise fault(errno.ENAMETOOLONG)
        try:
            self.mknod(path, stat.S_IFSOCK | (0o777 & ~self._umask), 0)
        except FileExistsError:
            raise fault(errno.EADDRINUSE) from None

    def symlink(self, target: bytes, path: bytes) -> None:
        place = self._resolver.vacancy(path)
        made, _ = self.overlay.symlink(place.parent, place.name, target, self.caller)
        self._resolver.handed_out.add(made)

    def link(self, source: bytes, path: bytes) -> None:
        node = self._resolver.node(source, follow=False)
        place = self._resolver.vacancy(path)
        if node.is_dir:
            raise fault(errno.EPERM)
        self._resolver.handed_out.add(self.overlay.link(node, place.parent, place.name))

    def unlink(self, path: bytes) -> None:
        place, node = self._resolver.occupied(path)
        if node.is_dir:
            raise fault(errno.EISDIR)
        self.overlay.unlink(place.parent, place.name)

    def rename(self, source: bytes, target: bytes, flags: int) -> None:
        """do_renameat2 and vfs_rename up to the call of the file system."""
        exchange = bool(flags & rawcalls.RENAME_EXCHANGE)
        self._resolver.parent(source)
        self._resolver.parent(target)
        here, node = self._resolver.occupied(source)
        there = self._resolver.place(target, follow=False)
        if there.node is not None and flags & rawcalls.RENAME_NOREPLACE:
            raise fault(errno.EEXIST)
        if there.node is None and exchange:
            raise fault(errno.ENOENT)
        if _is_inside(there.parent, node):
            raise fault(errno.EINVAL)
        if there.node is not None and _is_inside(here.parent, there.node):
            raise fault(errno.EINVAL if exchange else errno.ENOTEMPTY)
        if node is there.node:
            return
        if there.node is not None and not exchange and node.is_dir != there.node.is_dir:
            raise fault(errno.ENOTDIR if node.is_dir else errno.EISDIR)
        self.overlay.rename(here.parent, here.name, there.parent, there.name, flags)

    def truncate(self, path: bytes, size: int) -> None:
        node = self._resolver.node(path, follow=True)
        if node.is_dir:
            raise fault(errno.EISDIR)
        if not node.is_file:
            raise fault(errno.EINVAL)
        self._resize(node, size)

    def chmod(self, path: bytes, mode: int) -> None:
        self._set_mode(self._resolver.node(path, follow=True), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self._set_owner(self._resolver.node(path, follow=False), uid, gid)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int, follow: bool) -> None:
        self._change(self._resolver.node(path, follow=follow), atime_ns=atime_ns, mtime_ns=mtime_ns)

    def touch(self, path: bytes) -> None:
        now = time.time_ns()
        self.utimens(path, now, now, True)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        self._set_xattr(self._resolver.node(path, follow=False), name, value, flags)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return self._get_xattr(self._resolver.node(path, follow=False), name)

    def listxattr(self, path: bytes) -> list[bytes]:
        return self.overlay.listxattr(self._resolver.node(path, follow=False))

    def removexattr(self, path: bytes, name: bytes) -> None:
        node = self._resolver.node(path, follow=False)
        if name.startswith(b"user.") and not (node.is_dir or node.is_file):
            raise fault(errno.EPERM)
        if name.startswith(b"system.posix_acl_") and node.kind == stat.S_IFLNK:
            raise fault(errno.EOPNOTSUPP)
        self.overlay.removexattr(node, name)

    def list_in_pieces(self, path: bytes, first: int) -> list[bytes]:
        node = self._resolver.node(path, follow=True)
        if not node.is_dir:
            raise fault(errno.ENOTDIR)
        names = [entry[0] for entry in self.overlay.list_dir(node).entries]
        at = first % len(names) + 1 if names else 0
        return names[:at] + [entry[0] for entry in self.overlay.list_dir(node).entries[at:]]

    def statfs(self, path: bytes) -> tuple[int, int, int]:
        self._resolver.node(path, follow=True)
        st = self.overlay.statfs()
        return st.f_bsize, st.f_blocks, st.f_namemax

    def umask(self, mask: int) -> int:
        before, self._umask = self._umask, mask
        return before


def _depth(node: Node) -> int:
    depth = 0
    while node.parent is not None:
        node, depth = node.parent, depth + 1
    return depth


def _is_inside(node: Node, ancestor: Node) -> bool:
    """Whether `node` is `ancestor` or below it."""
    here: Node | None = node
    while here is not None:
        if here is ancestor:
            return True
        here = here.parent
    return False
