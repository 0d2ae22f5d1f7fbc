"""Requests about names: finding, making, linking, renaming and removing them."""

from overlayfs_py.engine.native.message import Request
from overlayfs_py.engine.native.state import NOT_KEPT, State
from overlayfs_py.syscalls.rename import RENAME_EXCHANGE
from overlayfs_py.union.overlay import Caller, Node


class NameRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._overlay = state.overlay

    def lookup(self, request: Request, name: bytes) -> bytes:
        state = self._state
        parent = state.nodes.inode(request.nodeid).node
        found = self._overlay.find(parent, name)
        if found is None:
            return state.missing
        if state.bare_listings:
            state.looked_up(parent)
        return state.found(*found, request.pid)

    def mknod(self, request: Request, mode: int, rdev: int, umask: int, name: bytes) -> bytes:
        caller = Caller(request.uid, request.gid, umask)
        parent = self._state.directory(request.nodeid)
        made = self._overlay.mknod(parent, name, mode, rdev, caller)
        self._state.changed(parent, request.pid)
        return self._state.made(*made)

    def mkdir(self, request: Request, mode: int, umask: int, name: bytes) -> bytes:
        caller = Caller(request.uid, request.gid, umask)
        parent = self._state.directory(request.nodeid)
        made = self._overlay.mkdir(parent, name, mode, caller)
        self._state.changed(parent, request.pid)
        return self._state.made(*made)

    def symlink(self, request: Request, name: bytes, target: bytes) -> bytes:
        caller = Caller(request.uid, request.gid, 0)
        parent = self._state.directory(request.nodeid)
        made = self._overlay.symlink(parent, name, target, caller)
        self._state.changed(parent, request.pid)
        return self._state.made(*made)

    def link(self, request: Request, old_nodeid: int, name: bytes) -> bytes:
        state = self._state
        node = state.node(old_nodeid)
        state.need_upper(node, data=False)
        parent = state.directory(request.nodeid)
        node = self._overlay.link(node, parent, name)
        state.changed(parent, request.pid)
        inode = state.nodes.known(node)
        # This answer is taken in even when it is outdated, which only pages written back can make it.
        return state.entry(node, NOT_KEPT if inode is not None and inode.mapped else None)

    def unlink(self, request: Request, name: bytes) -> bytes:
        self._settle(request.nodeid, name)
        parent = self._state.directory(request.nodeid)
        self._overlay.unlink(parent, name)
        self._state.changed(parent, request.pid)
        return b""

    def rmdir(self, request: Request, name: bytes) -> bytes:
        parent = self._state.directory(request.nodeid)
        self._overlay.rmdir(parent, name)
        self._state.changed(parent, request.pid)
        return b""

    def rename(self, request: Request, new_nodeid: int, name: bytes, new_name: bytes) -> bytes:
        return self.rename2(request, new_nodeid, 0, name, new_name)

    def rename2(self, request: Request, new_nodeid: int, flags: int, name: bytes, new_name: bytes) -> bytes:
        self._overlay.check_rename(flags)
        state = self._state
        moved = self._settle(request.nodeid, name, copy=True)
        replaced = self._settle(new_nodeid, new_name, copy=bool(flags & RENAME_EXCHANGE))
        old, new = state.directory(request.nodeid), state.directory(new_nodeid)
        self._overlay.rename(old, name, new, new_name, flags)
        for node in (old, new, moved, replaced):
            if node is not None:
                state.changed(node, request.pid)
        return b""

    def readlink(self, request: Request) -> bytes:
        return self._overlay.readlink(self._state.node(request.nodeid))

    def _settle(self, parent_id: int, name: bytes, *, copy: bool = False) -> Node | None:
        """Before a name changes: wait for a running copy of what it names; copy a file up that has to be
        (`copy`: because it moves; else because it is a hard link that gets an index entry). Returns it.
        """
        state = self._state
        node = self._overlay.known_child(state.nodes.inode(parent_id).node, name)
        if node is None:  # the kernel does not hold it, so nothing is under way
            return None
        if not node.is_dir and (copy or self._overlay.unlinking_copies(node)):
            state.need_upper(node, data=False)
        else:
            state.settled(node)
        return node
