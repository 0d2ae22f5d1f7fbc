"""pyfuse3's handlers over `union.Overlay`, one method for each request; nothing here knows layers.

Two of pyfuse3's defaults stay on purpose: flush and poll answer ENOSYS once, so that the kernel never sends
them again; and the kernel never sends access, since it checks permissions itself.
"""

import functools
import inspect
import itertools
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pyfuse3
import trio

from overlayfs_py.engine.base import wants_descriptors
from overlayfs_py.engine.libfuse.gate import gated
from overlayfs_py.engine.libfuse.replies import SETID_BITS, as_touched, statfs_reply
from overlayfs_py.engine.libfuse.session import Context, OpenDirectory, OpenFile, Session
from overlayfs_py.syscalls.xattrs import ACL_ACCESS
from overlayfs_py.union.overlay import AttrChanges, Caller

_ACL_ACCESS = os.fsencode(ACL_ACCESS)
# The kernel handles O_DIRECT and its page cache itself; a layer's descriptor would require alignment.
_NOT_FOR_LAYERS = os.O_DIRECT


class OverlayOperations(Session):
    """One method for each request."""

    # -- names ---------------------------------------------------------------------------------

    async def lookup(self, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        node = self._overlay.lookup(self._nodes.inode(parent_id).node, name)
        return self._missing if node is None else self._entry(node, ctx.pid)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for nodeid, lookups in inode_list:
            self._forget(nodeid, lookups)

    async def mknod(
        self, parent_id: int, name: bytes, mode: int, rdev: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        parent = self._node(parent_id)
        with self._changing(parent, ctx):
            node, _ = self._overlay.mknod(parent, name, mode, rdev, _caller(ctx))
        return self._entry(node)

    async def mkdir(self, parent_id: int, name: bytes, mode: int, ctx: Context) -> pyfuse3.EntryAttributes:
        parent = self._node(parent_id)
        with self._changing(parent, ctx):
            node, _ = self._overlay.mkdir(parent, name, mode, _caller(ctx))
        return self._entry(node)

    async def symlink(
        self, parent_id: int, name: bytes, target: bytes, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        parent = self._node(parent_id)
        with self._changing(parent, ctx):
            node, _ = self._overlay.symlink(parent, name, target, _caller(ctx))
        return self._entry(node)

    async def link(self, nodeid: int, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        node, parent = self._node(nodeid), self._node(parent_id)
        if self._overlay.needs_copy_up(node, data=False):
            self._overlay.check_link(node, parent, name)
        await self._copies.ensure_upper(node, data=False)
        with self._changing(parent, ctx):
            self._overlay.link(node, parent, name)
        entry = self._entry(node)
        entry.attr_timeout = 0  # the kernel accepts it even when page write-back has made it stale
        return entry

    async def unlink(self, parent_id: int, name: bytes, ctx: Context) -> None:
        parent = self._node(parent_id)
        node = self._overlay.check_unlink(parent, name)
        if self._overlay.unlinking_copies(node):
            await self._copies.ensure_upper(node, data=False)
        else:
            await self._copies.settled(node)
        with self._changing(parent, ctx):
            self._overlay.unlink(parent, name)

    async def rmdir(self, parent_id: int, name: bytes, ctx: Context) -> None:
        parent = self._node(parent_id)
        with self._changing(parent, ctx):
            self._overlay.rmdir(parent, name)

    async def rename(
        self, old_id: int, old_name: bytes, new_id: int, new_name: bytes, flags: int, ctx: Context
    ) -> None:
        old, new = self._node(old_id), self._node(new_id)
        moved, replaced = await self._settled(old, old_name), await self._settled(new, new_name)
        for node in self._overlay.check_rename(old, old_name, new, new_name, flags):
            await self._copies.ensure_upper(node, data=False)
        with self._changing(old, ctx), self._changing(new, ctx):
            self._overlay.rename(old, old_name, new, new_name, flags)
        for changed in (moved, replaced):
            if changed is not None:
                self._changed(changed, ctx)

    async def readlink(self, nodeid: int, ctx: Context) -> bytes:
        return self._overlay.readlink(self._nodes.inode(nodeid).node)

    # -- attributes ----------------------------------------------------------------------------

    async def getattr(self, nodeid: int, ctx: Context) -> pyfuse3.EntryAttributes:
        inode = self._nodes.inode(nodeid)
        inode.sent_to(ctx.pid)
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
        inode.sent_to(ctx.pid)
        changes = AttrChanges(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        try:
            self._overlay.check_setattr(inode.node, changes)
        except PermissionError:  # an append-only file may be touched, but pyfuse3 passes no such flag
            changes = as_touched(changes)
            self._overlay.check_setattr(inode.node, changes)
        if changes.size == 0:  # no contents remain, so the union copies none
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
        if self._overlay.needs_copy_up(inode.node, data=False):
            self._overlay.check_setxattr(inode.node, name, value)
        await self._copies.ensure_upper(inode.node, data=False)
        self._overlay.setxattr(inode.node, name, value)
        self._changed(inode.node, ctx)
        if name == _ACL_ACCESS and inode.setid:
            self._drop_setgid_for_acl(inode, ctx)

    async def removexattr(self, nodeid: int, name: bytes, ctx: Context) -> None:
        inode = self._nodes.inode(nodeid)
        if not self._overlay.check_removexattr(inode.node, name):
            return
        await self._copies.ensure_upper(inode.node, data=False)
        self._overlay.removexattr(inode.node, name)
        self._changed(inode.node, ctx)
        if name == _ACL_ACCESS and inode.setid:
            self._drop_setgid_for_acl(inode, ctx)

    # -- files ---------------------------------------------------------------------------------

    async def create(
        self, parent_id: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        flags &= ~_NOT_FOR_LAYERS
        parent = self._node(parent_id)
        with self._changing(parent, ctx):
            node, handle = self._overlay.create(parent, name, flags, mode, _caller(ctx))
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
        self._overlay.check_open(inode.node, flags)
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
        done = self._overlay.write(inode.node, offset, data)
        if inode.clear_requester(0):  # it may be write-back of pages, from any process
            self._attributes_changed(inode.node)
        return done

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Sync in a thread, since it waits for the disk; on its own descriptor, since the union may replace
        its.
        """
        fd = self._overlay.durable_fd(self._files[fh].inode.node)
        if fd is None:
            return
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
        for position in range(start_id, len(directory.entries)):
            if not self._reply_name(directory, position, entry, token):
                return

    async def releasedir(self, fh: int) -> None:
        del self._directories[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._overlay.fsync(self._directories[fh].node, datasync)


def _caller(ctx: Context) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


Request = Callable[..., Awaitable[Any]]


def guarded(operation: str, request: Request) -> Request:
    """Return `request` wrapped so that it raises FUSEError only: pyfuse3 ends the session on anything else.

    FORGET has no answer and so must not raise at all.
    """
    answered = operation != "forget"

    @functools.wraps(request)
    async def answer(self: Session, *args: Any) -> Any:
        self.counts[operation] += 1
        for attempt in itertools.count():
            try:
                return await request(self, *args)
            except pyfuse3.FUSEError as error:
                code = error.errno
            except Exception as error:
                if wants_descriptors(error) and await self.spared_descriptors(attempt):
                    continue
                code = self.errors.reply_error(operation, error)
            break
        self.refusals[operation, code] += 1
        if answered:
            raise pyfuse3.FUSEError(code)

    return answer


# Every request that this class answers; each is guarded below.
HANDLERS = tuple(
    name
    for name, value in vars(OverlayOperations).items()
    if not name.startswith("_") and hasattr(pyfuse3.Operations, name) and inspect.iscoroutinefunction(value)
)
for _name in HANDLERS:
    setattr(OverlayOperations, _name, guarded(_name, gated(_name, getattr(OverlayOperations, _name))))
