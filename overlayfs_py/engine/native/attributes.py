"""Requests about attributes and extended attributes."""

import errno
import os
import stat

from overlayfs_py.engine.copying import CopyUpEffects
from overlayfs_py.engine.native import message, wire
from overlayfs_py.engine.native.answers import NOT_KEPT
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.engine.setid import may_keep_setgid, without_setid
from overlayfs_py.errors import fail
from overlayfs_py.syscalls.xattrs import ACL_ACCESS, CAPABILITY
from overlayfs_py.union.overlay import NOW, AttrChanges, Node

_CAPABILITY = os.fsencode(CAPABILITY)
_ACL_ACCESS = os.fsencode(ACL_ACCESS)
_BILLION = 1_000_000_000
# Times that the kernel writes back by itself where it keeps them (data=writeback).
_WRITTEN_BACK = wire.FATTR_MTIME | wire.FATTR_CTIME


class AttributeRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._overlay = state.overlay

    def getattr(self, request: Request, flags: int, fh: int) -> bytes:
        state = self._state
        inode = state.nodes.inode(request.nodeid)
        node = inode.node
        if inode.requester != request.pid:
            inode.sent_to(request.pid)
        return state.answers.attributes(node, self._overlay.getattr(node))

    def statx(self, request: Request, flags: int, fh: int, how: int, mask: int) -> bytes:
        """As GETATTR, with the birth time if the caller requests it."""
        inode = self._state.nodes.inode(request.nodeid)
        inode.sent_to(request.pid)
        node = inode.node
        birth = self._overlay.birth_time(node) if mask & wire.STATX_BTIME else None
        return message.statx(self._state.answers.kept(node), self._overlay.getattr(node), birth)

    def setattr(
        self,
        request: Request,
        valid: int,
        fh: int,
        size: int,
        lock_owner: int,
        atime: int,
        mtime: int,
        ctime: int,
        atime_nsec: int,
        mtime_nsec: int,
        ctime_nsec: int,
        mode: int,
        uid: int,
        gid: int,
    ) -> bytes:
        state = self._state
        inode = state.nodes.inode(request.nodeid)
        inode.sent_to(request.pid)
        node = inode.node
        changes = AttrChanges(
            stat.S_IMODE(mode) if valid & wire.FATTR_MODE else None,
            uid if valid & wire.FATTR_UID else None,
            gid if valid & wire.FATTR_GID else None,
            size if valid & wire.FATTR_SIZE else None,
            atime * _BILLION + atime_nsec if valid & wire.FATTR_ATIME else None,
            mtime * _BILLION + mtime_nsec if valid & wire.FATTR_MTIME else None,
        )
        if valid & wire.FATTR_ATIME_NOW:
            changes = changes._replace(atime_ns=NOW)
        if valid & wire.FATTR_MTIME_NOW:
            changes = changes._replace(mtime_ns=NOW)
        if state.collects and valid & wire.FATTR_SIZE and not valid & wire.FATTR_MTIME:
            # truncate(2) to the size that the file has: the kernel leaves its own mtime (fuse_do_setattr).
            changes = changes._replace(mtime_ns=self._overlay.getattr(node).mtime_ns)
        copies = self._overlay.needs_copy_up(node, data=False)
        if copies:
            if valid & ~wire.FATTR_FH == _WRITTEN_BACK:
                found = self._overlay.getattr(node)
                if found.mtime_ns == changes.mtime_ns:
                    # Only the ctime is new, as after one of its names was removed.
                    return state.answers.attributes(node, found)
            self._overlay.check_setattr(node, changes)
        if changes.size == 0:  # no contents remain, so the union copies none
            state.copying.settled(node)
            state.needs.names_above(node)
        else:
            state.copying.need_upper(node, data=changes.size is not None)
        before = CopyUpEffects(self._overlay, node) if copies and changes.size == 0 else None
        if changes.mode is not None and state.backings.foreign_writers(node, request.uid):
            changes = changes._replace(mode=stat.S_IMODE(without_setid(changes.mode, member=False)))
        found = self._overlay.setattr(node, changes)
        if before is not None:
            state.copying.copied(before)
        if valid & wire.FATTR_KILL_SUIDGID and found.mode & (stat.S_ISUID | stat.S_ISGID):
            state.drop_setid(node, request)
            found = self._overlay.getattr(node)
        return state.answers.attributes(node, found)

    def getxattr(self, request: Request, size: int, name: bytes) -> bytes | int:
        inode = self._state.nodes.inode(request.nodeid)
        if name != _CAPABILITY:
            return _sized(self._overlay.getxattr(inode.node, name), size)
        if inode.uncapable:
            return errno.ENODATA
        try:
            return _sized(self._overlay.getxattr(inode.node, name), size)
        except OSError as error:
            inode.uncapable = error.errno == errno.ENODATA and self._state.answers.attrs != NOT_KEPT
            raise

    def listxattr(self, request: Request, size: int) -> bytes:
        node = self._state.node(request.nodeid)
        return _sized(message.joined_names(self._overlay.listxattr(node, trusted=request.uid == 0)), size)

    def setxattr(
        self, request: Request, size: int, flags: int, more: int, name: bytes, value: memoryview
    ) -> bytes:
        if len(value) < size:
            fail(errno.EINVAL)
        inode = self._state.nodes.inode(request.nodeid)
        node = inode.node
        content = bytes(value[:size])
        if self._overlay.needs_copy_up(node, data=False):
            self._overlay.check_setxattr(node, name, content)
        self._state.copying.need_upper(node, data=False)
        inode.uncapable = False
        self._overlay.setxattr(node, name, content, flags)
        if more & wire.SETXATTR_ACL_KILL_SGID:
            mode = self._overlay.getattr(node).mode
            if mode & stat.S_ISGID:
                self._state.change_mode(node, mode & ~stat.S_ISGID)
        self._state.notices.changed(node, request.pid)
        return b""

    def removexattr(self, request: Request, name: bytes) -> bytes:
        node = self._state.node(request.nodeid)
        if not self._overlay.check_removexattr(node, name):
            return b""
        self._state.copying.need_upper(node, data=False)
        self._overlay.removexattr(node, name)
        if name == _ACL_ACCESS:
            self._drop_setgid(node, request)
        self._state.notices.changed(node, request.pid)
        return b""

    def _drop_setgid(self, node: Node, request: Request) -> None:
        """Clear set-group-ID when a caller outside the group removes an ACL (posix_acl_update_mode)."""
        attr = self._overlay.getattr(node)
        if not attr.mode & stat.S_ISGID:
            return
        if not may_keep_setgid(attr.gid, request.uid, request.gid, request.pid):
            self._state.change_mode(node, attr.mode & ~stat.S_ISGID)

    def statfs(self, request: Request) -> bytes:
        self._state.needs.forgotten()  # forgotten nodes may hold blocks of removed files
        st = self._overlay.statfs()
        return wire.STATFS_OUT.pack(
            st.f_blocks,
            st.f_bfree,
            st.f_bavail,
            st.f_files,
            st.f_ffree,
            st.f_bsize,
            st.f_namemax,
            st.f_frsize,
            0,
        )


def _sized(value: bytes, size: int) -> bytes:
    """Return the answer for a buffer of `size` bytes; 0 requests the length; ERANGE if it is too small."""
    if size == 0:
        return wire.XATTR_SIZE_OUT.pack(len(value), 0)
    if len(value) > size:
        fail(errno.ERANGE)
    return value
