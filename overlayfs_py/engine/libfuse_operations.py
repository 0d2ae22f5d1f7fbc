"""pyfuse3's handlers over `union.Overlay`, one method a request; nothing here knows what a layer is.

Two of pyfuse3's defaults stay on purpose: flush and poll answer ENOSYS once, so the kernel never asks
again; access is never asked, as the kernel checks permissions itself.
"""

import functools
import inspect
import itertools
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from overlayfs_py.engine.base import EngineStatistics, ErrorTranslator
from overlayfs_py.engine.caching import CachePolicy
from overlayfs_py.engine.copying import Copies
from overlayfs_py.engine.libfuse_replies import SETID_BITS, fill, statfs_reply
from overlayfs_py.engine.nodes import Inode, NodeTable
from overlayfs_py.engine.setid import in_group, may_keep_setid, without_setid
from overlayfs_py.union.attr import Attr, AttrChanges, Caller
from overlayfs_py.union.node import Node

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Handle, Overlay

_ACCESS_ACL = b"system.posix_acl_access"
# The kernel does O_DIRECT itself and keeps its page cache right; a layer's descriptor would want alignment.
_NOT_FOR_LAYERS = os.O_DIRECT

_DT_DIR = 4
_DOTS = 2  # . and .. come first in a snapshot

Context = pyfuse3.RequestContext


class OpenFile:
    """One open of a file: what pyfuse3's `fh` stands for."""

    __slots__ = ("handle", "inode", "pid", "uid")

    def __init__(self, inode: Inode, handle: "Handle", ctx: Context) -> None:
        self.inode = inode
        self.handle = handle
        self.uid: int = ctx.uid
        self.pid: int = ctx.pid


class OpenDirectory:
    """One open of a directory; its snapshot is made by the first read and made anew by a rewind."""

    __slots__ = ("entries", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entries: Sequence[tuple[bytes, int, int]] = ()


class OverlayOperations(pyfuse3.Operations):
    """The session's state: nodes the kernel knows, open files and directories, copies under way."""

    supports_dot_lookup = False  # a forgotten node cannot be found by its number alone
    enable_writeback_cache = False

    def __init__(self, overlay: "Overlay", policy: CachePolicy, limiter: trio.CapacityLimiter) -> None:
        super().__init__()
        self.enable_acl = not overlay.options.noacl
        self._overlay = overlay
        self._policy = policy
        self._limiter = limiter
        self._nodes = NodeTable(overlay.root)
        self._copies = Copies(overlay, limiter, self._attributes_changed)
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._handles = itertools.count(1)
        self.errors = ErrorTranslator()
        self.requests = 0
        self._missing = pyfuse3.EntryAttributes()
        self._missing.st_ino = 0
        self._missing.entry_timeout = policy.negative

    def statistics(self) -> EngineStatistics:
        """What is held now."""
        return EngineStatistics(
            nodes=len(self._nodes),
            open_files=len(self._files),
            open_directories=len(self._directories),
            copies=len(self._copies),
            requests=self.requests,
        )

    def drop_all(self) -> None:
        """Give back what the kernel left open and known, after the session's end."""
        for file in self._files.values():
            self._overlay.release(file.handle)
        self._files.clear()
        self._directories.clear()
        for node in self._nodes.clear():
            self._overlay.forget(node)

    # -- names ---------------------------------------------------------------------------------

    async def lookup(self, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        node = self._overlay.lookup(self._nodes.inode(parent_id).node, name)
        return self._missing if node is None else self._entry(node)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for nodeid, lookups in inode_list:
            node = self._nodes.forget(nodeid, lookups)
            if node is not None:
                self._overlay.forget(node)

    async def mknod(
        self, parent_id: int, name: bytes, mode: int, rdev: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._overlay.mknod(self._parent(parent_id), name, mode, rdev, _caller(ctx)))

    async def mkdir(self, parent_id: int, name: bytes, mode: int, ctx: Context) -> pyfuse3.EntryAttributes:
        return self._entry(self._overlay.mkdir(self._parent(parent_id), name, mode, _caller(ctx)))

    async def symlink(
        self, parent_id: int, name: bytes, target: bytes, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._overlay.symlink(self._parent(parent_id), name, target, _caller(ctx)))

    async def link(self, nodeid: int, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        node = self._nodes.inode(nodeid).node
        await self._copies.ensure_upper(node, data=False)
        return self._entry(self._overlay.link(node, self._parent(parent_id), name))

    async def unlink(self, parent_id: int, name: bytes, ctx: Context) -> None:
        await self._settle(parent_id, name)
        self._overlay.unlink(self._parent(parent_id), name)

    async def rmdir(self, parent_id: int, name: bytes, ctx: Context) -> None:
        self._overlay.rmdir(self._parent(parent_id), name)

    async def rename(
        self, old_id: int, old_name: bytes, new_id: int, new_name: bytes, flags: int, ctx: Context
    ) -> None:
        await self._settle(old_id, old_name, copy=True)
        await self._settle(new_id, new_name, copy=bool(flags & pyfuse3.RENAME_EXCHANGE))
        old, new = self._parent(old_id), self._parent(new_id)
        self._overlay.rename(old, old_name, new, new_name, flags)

    async def readlink(self, nodeid: int, ctx: Context) -> bytes:
        return self._overlay.readlink(self._nodes.inode(nodeid).node)

    # -- attributes ----------------------------------------------------------------------------

    async def getattr(self, nodeid: int, ctx: Context) -> pyfuse3.EntryAttributes:
        inode = self._nodes.inode(nodeid)
        return self._attributes(inode, self._overlay.getattr(inode.node))

    async def setattr(
        self,
        nodeid: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: Context,
    ) -> pyfuse3.EntryAttributes:
        inode = self._nodes.inode(nodeid)
        changes = AttrChanges(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        if changes.size == 0:  # nothing of the contents will be left: the union copies none
            await self._copies.settled(inode.node)
        else:
            await self._copies.ensure_upper(inode.node, data=changes.size is not None)
        found = self._overlay.setattr(inode.node, changes)
        inode.setid = bool(found.mode & SETID_BITS)
        if changes.size is not None and self._drop_setid(inode, ctx.uid, ctx.pid):
            found = self._overlay.getattr(inode.node)
        return self._attributes(inode, found)

    async def statfs(self, ctx: Context) -> pyfuse3.StatvfsData:
        return statfs_reply(self._overlay.statfs())

    # -- extended attributes -------------------------------------------------------------------

    async def getxattr(self, nodeid: int, name: bytes, ctx: Context) -> bytes:
        return self._overlay.getxattr(self._nodes.inode(nodeid).node, name)

    async def listxattr(self, nodeid: int, ctx: Context) -> list[bytes]:
        return self._overlay.listxattr(self._nodes.inode(nodeid).node, trusted=ctx.uid == 0)

    async def setxattr(self, nodeid: int, name: bytes, value: bytes, ctx: Context) -> None:
        inode = self._nodes.inode(nodeid)
        await self._copies.ensure_upper(inode.node, data=False)
        self._overlay.setxattr(inode.node, name, value)
        if name == _ACCESS_ACL and inode.setid:
            self._drop_setgid_for_acl(inode, ctx)

    async def removexattr(self, nodeid: int, name: bytes, ctx: Context) -> None:
        node = self._nodes.inode(nodeid).node
        self._overlay.getxattr(node, name)  # ENODATA before a copy-up, not after
        await self._copies.ensure_upper(node, data=False)
        self._overlay.removexattr(node, name)

    # -- files ---------------------------------------------------------------------------------

    async def create(
        self, parent_id: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        flags &= ~_NOT_FOR_LAYERS
        node, handle = self._overlay.create(self._parent(parent_id), name, flags, mode, _caller(ctx))
        try:
            entry = self._entry(node)
        except BaseException:
            self._overlay.release(handle)
            raise
        inode = self._nodes.known(node)
        assert inode is not None
        return self._opened(OpenFile(inode, handle, ctx)), entry

    async def open(self, nodeid: int, flags: int, ctx: Context) -> pyfuse3.FileInfo:
        inode = self._nodes.inode(nodeid)
        flags &= ~_NOT_FOR_LAYERS
        truncate = bool(flags & os.O_TRUNC)
        if truncate:
            await self._copies.settled(inode.node)
        elif flags & os.O_ACCMODE != os.O_RDONLY:
            await self._copies.ensure_upper(inode.node, data=True)
        file = OpenFile(inode, self._overlay.open_file(inode.node, flags), ctx)
        if truncate:
            self._drop_setid(inode, ctx.uid, ctx.pid)
        return self._opened(file)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        return self._overlay.read(self._files[fh].inode.node, offset, size)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        file = self._files[fh]
        inode = file.inode
        if inode.setid:
            self._drop_setid(inode, file.uid, file.pid)
        return self._overlay.write(inode.node, offset, data)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """In a thread, as it waits for the disk; on a copy of the descriptor: the union may exchange it."""
        file = self._files[fh]
        node = file.inode.node
        if node.upper is None or self._overlay.options.volatile:
            return
        fd = os.dup(file.handle.fd)
        try:
            await trio.to_thread.run_sync(os.fdatasync if datasync else os.fsync, fd, limiter=self._limiter)
        finally:
            os.close(fd)

    async def release(self, fh: int) -> None:
        self._overlay.release(self._files.pop(fh).handle)

    # -- directories ---------------------------------------------------------------------------

    async def opendir(self, nodeid: int, ctx: Context) -> int:
        node = self._nodes.inode(nodeid).node
        fh = next(self._handles)
        self._directories[fh] = OpenDirectory(node)
        return fh

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory = self._directories[fh]
        if start_id == 0:
            directory.entries = self._snapshot(directory.node)
        entry = pyfuse3.EntryAttributes()  # one for all names, as readdir_reply copies it
        entry.entry_timeout = self._policy.entry
        for position in range(start_id, len(directory.entries)):
            if not self._reply_name(directory, position, entry, token):
                return

    async def releasedir(self, fh: int) -> None:
        del self._directories[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._overlay.fsync(self._directories[fh].node, datasync)

    # -- what the requests share ---------------------------------------------------------------

    def _parent(self, nodeid: int) -> Node:
        """The directory to change, with an upper part."""
        node = self._nodes.inode(nodeid).node
        self._copies.ensure_directory(node)
        return node

    async def _settle(self, parent_id: int, name: bytes, *, copy: bool = False) -> None:
        """Before a name changes: wait for a running copy of what it names, or (`copy`) copy a file up."""
        if not copy and not self._copies:
            return
        node = self._overlay.lookup(self._nodes.inode(parent_id).node, name)
        if node is None or self._nodes.known(node) is None:
            return  # the kernel does not hold it, so nothing is under way
        if copy and not node.is_dir:
            await self._copies.ensure_upper(node, data=False)
        else:
            await self._copies.settled(node)

    def _entry(self, node: Node) -> pyfuse3.EntryAttributes:
        """The answer that hands out `node` once more."""
        try:
            attr = self._overlay.getattr(node)
        except BaseException:
            if self._nodes.known(node) is None:
                self._overlay.forget(node)
            raise
        inode = self._nodes.remember(node, attr.ino)
        inode.setid = bool(attr.mode & SETID_BITS)
        entry = pyfuse3.EntryAttributes()
        fill(entry, attr)
        entry.st_ino = inode.nodeid
        entry.entry_timeout = self._policy.entry
        # The number in an entry is the nodeid: where the st_ino is another one, GETATTR must tell it.
        entry.attr_timeout = self._policy.attr if inode.is_plain(attr.ino) else 0
        return entry

    def _attributes(self, inode: Inode, attr: Attr) -> pyfuse3.EntryAttributes:
        """The answer to GETATTR and SETATTR, where st_ino is not the nodeid."""
        inode.setid = bool(attr.mode & SETID_BITS)
        entry = pyfuse3.EntryAttributes()
        fill(entry, attr)
        entry.st_ino = attr.ino
        entry.attr_timeout = self._policy.attr
        return entry

    def _opened(self, file: OpenFile) -> pyfuse3.FileInfo:
        fh = next(self._handles)
        self._files[fh] = file
        return pyfuse3.FileInfo(fh=fh, keep_cache=self._policy.keep_pages)

    def _snapshot(self, node: Node) -> list[tuple[bytes, int, int]]:
        """The directory's names with . and .. before them, as a local file system lists them."""
        above = node.parent or node
        here = [(name, self._overlay.getattr(n).ino, _DT_DIR) for name, n in ((b".", node), (b"..", above))]
        return here + self._overlay.list_dir(node).entries

    def _reply_name(
        self,
        directory: OpenDirectory,
        position: int,
        entry: pyfuse3.EntryAttributes,
        token: pyfuse3.ReaddirToken,
    ) -> bool:
        """Report one name with its node; False when the kernel's buffer is full."""
        name, ino, d_type = directory.entries[position]
        if position < _DOTS:  # the kernel makes no node of these
            entry.st_ino, entry.st_mode = ino, d_type << 12
            return bool(pyfuse3.readdir_reply(token, name, entry, position + 1))
        try:
            node = self._overlay.lookup(directory.node, name)
            if node is None:
                return True  # removed since the snapshot
            attr = self._overlay.getattr(node)
        except OSError:  # listed all the same, without a node: using the name will say what is wrong
            entry.st_ino, entry.st_mode = 0, d_type << 12
            return bool(pyfuse3.readdir_reply(token, name, entry, position + 1))
        inode = self._nodes.remember(node, attr.ino)
        inode.setid = bool(attr.mode & SETID_BITS)
        fill(entry, attr)
        entry.st_ino = inode.nodeid
        entry.attr_timeout = self._policy.attr if inode.nodeid == attr.ino else 0
        if pyfuse3.readdir_reply(token, name, entry, position + 1):
            return True
        if self._nodes.forget(inode.nodeid, 1) is not None:
            self._overlay.forget(node)
        return False

    def _drop_setid(self, inode: Inode, uid: int, pid: int) -> bool:
        """Clear the set-id bits after a change of the contents by somebody without CAP_FSETID."""
        if not inode.setid or may_keep_setid(uid, pid):
            return False
        mode = self._overlay.getattr(inode.node).mode
        return self._change_mode(inode, mode, without_setid(mode))

    def _drop_setgid_for_acl(self, inode: Inode, ctx: Context) -> None:
        """Clear set-group-ID when an ACL is set by somebody outside the group (posix_acl_update_mode)."""
        attr = self._overlay.getattr(inode.node)
        if not in_group(attr.gid, ctx.gid, ctx.pid) and not may_keep_setid(ctx.uid, ctx.pid):
            self._change_mode(inode, attr.mode, attr.mode & ~stat.S_ISGID)

    def _change_mode(self, inode: Inode, mode: int, wanted: int) -> bool:
        if mode == wanted:
            return False
        self._overlay.setattr(inode.node, AttrChanges(mode=stat.S_IMODE(wanted)))
        inode.setid = bool(wanted & SETID_BITS)
        self._attributes_changed(inode.node)  # the kernel would run the file by the bits it remembers
        return True

    def _attributes_changed(self, node: Node) -> None:
        """Make the kernel ask again for attributes that its own requests did not tell it are stale."""
        inode = self._nodes.known(node)
        if inode is None:
            return
        try:
            pyfuse3.invalidate_inode(inode.nodeid, attr_only=True)
        except FileNotFoundError:
            pass  # it knows none


def _caller(ctx: Context) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


Request = Callable[..., Awaitable[Any]]


def guarded(operation: str, request: Request) -> Request:
    """`request` so that nothing but FUSEError leaves it: pyfuse3 ends the session on anything else."""

    @functools.wraps(request)
    async def answer(self: OverlayOperations, *args: Any) -> Any:
        self.requests += 1
        try:
            return await request(self, *args)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            code = self.errors.reply_error(operation, error)
            if operation == "forget":
                return None  # has no answer
            raise pyfuse3.FUSEError(code) from None

    return answer


# Every request that this class answers, for the guard and for the test of it.
HANDLERS = tuple(
    name
    for name, value in vars(OverlayOperations).items()
    if not name.startswith("_") and hasattr(pyfuse3.Operations, name) and inspect.iscoroutinefunction(value)
)
for _name in HANDLERS:
    setattr(OverlayOperations, _name, guarded(_name, getattr(OverlayOperations, _name)))
