"""Requests about names: finding, making, linking, renaming and removing them."""

from overlayfs_py.engine.native.answers import NOT_KEPT
from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.union.overlay import Caller, Node


class NameRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._overlay = state.overlay

    def lookup(self, request: Request, name: bytes) -> bytes:
        state = self._state
        parent = state.nodes.inode(request.nodeid).node
        found = self._overlay.find(parent, name)
        if found is None:
            return state.answers.missing
        if state.listings.bare:
            state.listings.looked_up(parent)
        return state.answers.found(*found, request.pid)

    def mknod(self, request: Request, mode: int, rdev: int, umask: int, name: bytes) -> bytes:
        caller = Caller(request.uid, request.gid, umask)
        parent = self._state.parent(request.nodeid)
        with self._state.changing(parent, request.pid):
            made = self._overlay.mknod(parent, name, mode, rdev, caller)
        return self._state.answers.made(*made)

    def mkdir(self, request: Request, mode: int, umask: int, name: bytes) -> bytes:
        caller = Caller(request.uid, request.gid, umask)
        parent = self._state.parent(request.nodeid)
        with self._state.changing(parent, request.pid):
            made = self._overlay.mkdir(parent, name, mode, caller)
        return self._state.answers.made(*made)

    def symlink(self, request: Request, name: bytes, target: bytes) -> bytes:
        caller = Caller(request.uid, request.gid, 0)
        parent = self._state.parent(request.nodeid)
        with self._state.changing(parent, request.pid):
            made = self._overlay.symlink(parent, name, target, caller)
        return self._state.answers.made(*made)

    def link(self, request: Request, old_nodeid: int, name: bytes) -> bytes:
        state = self._state
        node, parent = state.node(old_nodeid), state.parent(request.nodeid)
        if self._overlay.needs_copy_up(node, data=False):
            self._overlay.check_link(node, parent, name)
        state.copying.need_upper(node, data=False)
        with state.changing(parent, request.pid):
            node = self._overlay.link(node, parent, name)
        inode = state.nodes.known(node)
        # The kernel accepts this answer even when it is stale, as page write-back can make it.
        return state.answers.entry(node, NOT_KEPT if inode is not None and inode.mapped else None)

    def unlink(self, request: Request, name: bytes) -> bytes:
        state = self._state
        parent = state.parent(request.nodeid)
        node = self._overlay.check_unlink(parent, name)
        if self._overlay.unlinking_copies(node):
            state.copying.need_upper(node, data=False)
        else:
            state.copying.settled(node)
        with state.changing(parent, request.pid):
            self._overlay.unlink(parent, name)
        return b""

    def rmdir(self, request: Request, name: bytes) -> bytes:
        parent = self._state.parent(request.nodeid)
        self._settled(parent, name)
        with self._state.changing(parent, request.pid):
            self._overlay.rmdir(parent, name)
        return b""

    def rename(self, request: Request, new_nodeid: int, name: bytes, new_name: bytes) -> bytes:
        return self.rename2(request, new_nodeid, 0, name, new_name)

    def rename2(self, request: Request, new_nodeid: int, flags: int, name: bytes, new_name: bytes) -> bytes:
        state = self._state
        old, new = state.parent(request.nodeid), state.parent(new_nodeid)
        moved, replaced = self._settled(old, name), self._settled(new, new_name)
        for node in self._overlay.check_rename(old, name, new, new_name, flags):
            state.copying.need_upper(node, data=False)
        with state.changing(old, request.pid), state.changing(new, request.pid):
            self._overlay.rename(old, name, new, new_name, flags)
        for changed in (moved, replaced):
            if changed is not None:
                state.notices.changed(changed, request.pid)
        return b""

    def readlink(self, request: Request) -> bytes:
        return self._overlay.readlink(self._state.node(request.nodeid))

    def _settled(self, parent: Node, name: bytes) -> Node | None:
        """Return the node of `name`, None when the kernel does not hold it; postpones while it is
        copied up.
        """
        node = self._overlay.known_child(parent, name)
        if node is not None:
            self._state.copying.settled(node)
            self._state.needs.names(node)  # it may be a directory that must be empty
        return node
